# The image holds the static binary, the certificates of public authorities and
# an empty data folder; nothing in it can run but the mirror.
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" -t imgmirror .

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/imgmirror ./cmd/imgmirror
RUN mkdir -p /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/imgmirror /usr/bin/imgmirror
# A new volume takes its owner from this folder.
COPY --from=build --chown=65532:65532 /out/data /var/lib/imgmirror
USER 65532:65532
ENV IMGMIRROR_DATA_DIR=/var/lib/imgmirror
VOLUME /var/lib/imgmirror
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=1m --retries=3 CMD ["/usr/bin/imgmirror", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/imgmirror"]
CMD ["serve"]

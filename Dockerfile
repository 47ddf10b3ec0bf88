# The image holds the static binary, the certificates of public authorities and
# an empty data folder; nothing in it can run but the mirror.
#
#   docker build -t imgmirror --build-arg VERSION="$(deploy/version.sh)" \
#     --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
#
# With the same base image the same commit gives the same files, with the times of the commit.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=0.0.0-dev
ARG TARGETOS
ARG TARGETARCH
ARG SOURCE_DATE_EPOCH=0
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/imgmirror ./cmd/imgmirror
RUN mkdir -p /out/data && cp LICENSE /etc/ssl/certs/ca-certificates.crt /out/ && \
    find /out -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM scratch
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="imgmirror" \
    org.opencontainers.image.description="Caching pull-through mirror of SmartOS and Triton images" \
    org.opencontainers.image.licenses="MPL-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/LICENSE /usr/share/doc/imgmirror/copyright
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

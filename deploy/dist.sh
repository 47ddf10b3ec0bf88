#!/bin/sh
# deploy/dist.sh OUT: makes what is released, in the new folder OUT: archives, packages, plain binaries, a list of
# what each binary is made of, and the sums of all that. The same commit and the same Go give the same bytes, in any
# folder.
#
#   VERSION            of deploy/version.sh, if not set
#   SOURCE_DATE_EPOCH  the time of all files; that of the last commit, if not set
#   PLATFORMS          "linux/amd64 ..."; all, if not set
#   BINARY             a binary that stands for those of all platforms: to look at the layout alone
#   TOOLS              a folder that keeps the programs of others, built here at their pinned versions
#
# It needs Go, git, and GNU's tar and gzip.
set -eu
umask 022
mkdir -p "$1"
out=$(cd "$1" && pwd)
[ -z "$(ls -A "$out")" ] || { echo "dist.sh: $1 is not empty" >&2; exit 1; }
cd "$(dirname "$0")/.."

VERSION=${VERSION:-$(deploy/version.sh)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
PLATFORMS=${PLATFORMS:-illumos/amd64 linux/amd64 linux/arm64 freebsd/amd64 darwin/arm64}
export VERSION SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# tool PACKAGE VERSION: a pinned program, built from its module; its path.
tool() {
	dir=${TOOLS:-$work/tools}/$2
	[ -x "$dir/${1##*/}" ] || GOBIN=$dir GOFLAGS=-trimpath go install "$1@$2" >&2
	echo "$dir/${1##*/}"
}
nfpm=$(tool github.com/goreleaser/nfpm/v2/cmd/nfpm v2.45.2)
cyclonedx=$(tool github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod v1.10.0)

# build OS ARCH FILE
build() {
	if [ -n "${BINARY:-}" ]; then
		cp "$BINARY" "$3"
		return
	fi
	GOOS=$1 GOARCH=$2 CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$VERSION" -o "$3" ./cmd/imgmirror
}

# archive FOLDER FILE: FOLDER, with its name, as a tar that depends on names, modes and contents alone.
archive() {
	tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
		-C "$(dirname "$1")" -cf - "$(basename "$1")" | gzip -9n >"$2"
}

# What all archives have. The binary of this machine writes manual and completions.
common=$work/common
mkdir -p "$common/share/doc" "$common/share/man" "$common/share/completions" "$common/etc"
build "$(go env GOHOSTOS)" "$(go env GOHOSTARCH)" "$work/here"
"$work/here" man "$common/share/man" >/dev/null
for page in "$common"/share/man/*.*; do
	section=$common/share/man/man${page##*.}
	mkdir -p "$section"
	gzip -9n "$page"
	mv "$page.gz" "$section/"
done
"$work/here" completion bash >"$common/share/completions/imgmirror.bash"
"$work/here" completion fish >"$common/share/completions/imgmirror.fish"
"$work/here" completion zsh >"$common/share/completions/_imgmirror"
cp -R README.md CHANGELOG.md docs "$common/share/doc/"
cp deploy/imgmirror.yaml deploy/prometheus/alerts.yml "$common/share/doc/"
cp deploy/grafana/dashboards/imgmirror.json "$common/share/doc/dashboard.json"
cp deploy/etc/imgmirror.yaml "$common/etc/"
cp LICENSE "$common/"

for platform in $PLATFORMS; do
	os=${platform%/*} arch=${platform#*/}
	name=imgmirror-$VERSION-$os-$arch
	echo "$name"
	build "$os" "$arch" "$out/$name"
	GOOS=$os GOARCH=$arch "$cyclonedx" bin -json -noserial -notimestamp -std -version "$VERSION" \
		-output "$out/$name.cdx.json" "$out/$name" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
	tree=$work/$os-$arch/imgmirror
	mkdir -p "$tree/bin"
	cp -R "$common/." "$tree/"
	cp "$out/$name" "$tree/bin/imgmirror"
	case $os in
	illumos)
		cp -R deploy/smf "$tree/"
		chmod -R u=rwX,go=rX "$tree" # whatever the umask of the checkout
		archive "$tree" "$out/$name.tar.gz"
		;;
	linux)
		mkdir "$tree/systemd"
		cp deploy/imgmirror.service deploy/imgmirror.sysusers "$tree/systemd/"
		chmod -R u=rwX,go=rX "$tree"
		archive "$tree" "$out/$name.tar.gz"
		cp -R deploy/deb deploy/rpm "$tree/"
		for packager in deb rpm; do
			(cd "$tree" && ARCH=$arch "$nfpm" package -f "$OLDPWD/deploy/nfpm.yaml" -p $packager -t "$out/") >"$work/log" 2>&1 ||
				{ cat "$work/log" >&2; exit 1; }
		done
		;;
	esac
done
(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)

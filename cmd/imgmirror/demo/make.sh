#!/bin/sh
# Makes the sample images that `imgmirror demo` carries: see README.md.
#
#	usage: make.sh [DIR]          default: the folder that this script is in
#
# It needs root, FUSE and the Debian packages zfs-fuse, bzip2 and xz-utils. It
# makes a pool of its own on a file in a temporary folder, and takes both away
# at the end, whatever happens. A running zfs-fuse daemon is used; else one is
# started and stopped again. Every run makes streams with new snapshot guids
# and therefore new checksums, so all the images are replaced together.
set -eu

out=$(cd "${1:-$(dirname "$0")}" && pwd)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/imgmirror-samples.XXXXXX")
pool=imgmirror_samples_$$
daemon=

cleanup() {
	status=$?
	trap - EXIT INT TERM
	zpool destroy -f "$pool" 2>/dev/null || :
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null || :
		wait "$daemon" 2>/dev/null || :
	fi
	rm -rf "$tmp"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! zpool list >/dev/null 2>&1; then
	/usr/sbin/zfs-fuse --no-daemon >"$tmp/zfs-fuse.log" 2>&1 &
	daemon=$!
	tries=0
	until zpool list >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ "$tries" -gt 50 ]; then
			echo "make.sh: zfs-fuse does not answer:" >&2
			cat "$tmp/zfs-fuse.log" >&2
			exit 1
		fi
		sleep 0.1
	done
fi

truncate -s 256M "$tmp/vdev"
zpool create -f -m "$tmp/mnt" "$pool" "$tmp/vdev"
zfs set atime=off "$pool"

# write DATASET NAME VERSION KIB: the files of one image: two texts, a program,
# KIB of bytes that do not compress, and the sums of them all.
write() {
	dir=$tmp/mnt/$1
	mkdir -p "$dir/etc" "$dir/bin" "$dir/data"
	cat >"$dir/etc/motd" <<TEXT
This is $2 $3, a sample image of imgmirror.
It is no operating system: there is nothing here to boot.
TEXT
	printf 'name=%s\nversion=%s\n' "$2" "$3" >"$dir/etc/release"
	cat >"$dir/bin/$2" <<TEXT
#!/bin/sh
echo "hello from $2 $3"
TEXT
	chmod 0755 "$dir/bin/$2"
	head -c "$(($4 * 1024))" /dev/urandom >"$dir/data/$2.bin"
	(cd "$dir" && find . -type f ! -name SHA1SUMS | LC_ALL=C sort | xargs sha1sum >SHA1SUMS)
}

# image UUID NAME VERSION COMPRESSION KIB DATE DESCRIPTION [ORIGIN]: one image,
# its file and its v2 manifest. Datasets are named by uuid, as on a node, so
# that an incremental is sent as `imgadm create -i` does it.
image() {
	uuid=$1 name=$2 version=$3 compression=$4 kib=$5 date=$6 description=$7 origin=${8:-}
	if [ -n "$origin" ]; then
		zfs clone "$pool/$origin@final" "$pool/$uuid"
	else
		zfs create -o recordsize=8K "$pool/$uuid"
	fi
	write "$uuid" "$name" "$version" "$kib"
	zfs snapshot "$pool/$uuid@final"

	case $compression in
	gzip) suffix=.gz pack="gzip -9n" ;;
	bzip2) suffix=.bz2 pack="bzip2 -9" ;;
	xz) suffix=.xz pack="xz -9" ;;
	none) suffix= pack=cat ;;
	esac
	rm -rf "${out:?}/$uuid"
	mkdir "$out/$uuid"
	path=$name-$version.zfs$suffix
	zfs send ${origin:+-i "$pool/$origin@final"} "$pool/$uuid@final" >"$tmp/stream"
	$pack <"$tmp/stream" >"$out/$uuid/$path"

	guid=$(zfs get -Hp -o value guid "$pool/$uuid@final")
	sha1=$(sha1sum <"$out/$uuid/$path" | cut -d' ' -f1)
	size=$(wc -c <"$out/$uuid/$path")
	if [ "$compression" = bzip2 ]; then
		manifest_v1 >"$out/$uuid/manifest.json"
	else
		manifest_v2 >"$out/$uuid/manifest.json"
	fi
}

manifest_v2() {
	cat <<JSON
{
  "v": 2,
  "uuid": "$uuid",
  "owner": "00000000-0000-0000-0000-000000000000",
  "name": "$name",
  "version": "$version",
  "state": "active",
  "disabled": false,
  "public": true,
  "published_at": "$date",
  "type": "zone-dataset",
  "os": "smartos",${origin:+
  \"origin\": \"$origin\",}
  "files": [
    {
      "sha1": "$sha1",
      "size": $size,
      "compression": "$compression",
      "dataset_guid": "$guid"
    }
  ],
  "description": "$description",
  "homepage": "https://docs.smartos.org/",
  "requirements": {
    "networks": [
      {
        "name": "net0",
        "description": "public"
      }
    ]
  },
  "tags": {
    "role": "sample"
  }
}
JSON
}

# The dialect of the old datasets servers.
manifest_v1() {
	cat <<JSON
{
  "uuid": "$uuid",
  "name": "$name",
  "version": "$version",
  "description": "$description",
  "os": "smartos",
  "type": "zone-dataset",
  "platform_type": "smartos",
  "cloud_name": "sdc",
  "urn": "sdc:sample:$name:$version",
  "creator_name": "sample",
  "creator_uuid": "00000000-0000-0000-0000-000000000000",
  "vendor_uuid": "00000000-0000-0000-0000-000000000000",
  "created_at": "$date",
  "updated_at": "$date",
  "published_at": "$date",
  "files": [
    {
      "path": "$path",
      "sha1": "$sha1",
      "size": $size
    }
  ],
  "requirements": {
    "networks": [
      {
        "name": "net0",
        "description": "public"
      }
    ]
  }
}
JSON
}

base=5a3b1c2e-7d4f-4e8a-9b60-0c1d2e3f4a51
web=6b4c2d3f-8e50-4f9b-8c71-1d2e3f4a5b62
app=7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73

image $base sample-base 1.0.0 gzip 128 2026-01-10T09:00:00Z \
	"A sample base image – gzip, the first link of a chain of three."
image $web sample-web 1.0.0 xz 48 2026-01-11T09:00:00.250Z \
	"An increment on sample-base – xz." $base
image $app sample-app 1.0.0 gzip 24 2026-01-12T09:00:00Z \
	"An increment on sample-web – gzip, three levels deep." $web
image 8d6e4f51-a072-41bd-ae93-3f4a5b6c7d84 sample-bzip2 2.1.0 bzip2 72 2026-01-13T09:00Z \
	"A sample in the old dialect – bzip2, described as datasets.joyent.com did."
image 9e7f5062-b183-42ce-bfa4-4a5b6c7d8e95 sample-xz 2.2.0 xz 72 2026-01-14T09:00:00Z \
	"A sample image – xz."
image af806173-c294-43df-80b5-5b6c7d8e9fa6 sample-plain 2.3.0 none 16 2026-01-15T09:00:00Z \
	"A sample image – not compressed at all."

# The proof: take everything away, receive it again from the files alone, look.
for id in $app $web $base; do
	zfs umount "$pool/$id" 2>/dev/null || :
	zfs destroy -r "$pool/$id"
done
check() {
	uuid=$1
	file=$(find "$out/$uuid" -type f ! -name manifest.json)
	case $file in
	*.gz) gzip -dc <"$file" ;;
	*.bz2) bzip2 -dc <"$file" ;;
	*.xz) xz -dc <"$file" ;;
	*) cat "$file" ;;
	esac | zfs receive -u "$pool/check-$uuid"
	zfs mount "$pool/check-$uuid"
	(cd "$tmp/mnt/check-$uuid" && sha1sum --quiet -c SHA1SUMS && test -x "bin/sample-$2")
	zfs umount "$pool/check-$uuid"
	echo "$uuid $(wc -c <"$file") $(basename "$file")"
}
check $base base
check $web web
check $app app
check 8d6e4f51-a072-41bd-ae93-3f4a5b6c7d84 bzip2
check 9e7f5062-b183-42ce-bfa4-4a5b6c7d8e95 xz
check af806173-c294-43df-80b5-5b6c7d8e9fa6 plain

#!/bin/sh
# Makes this SmartOS node a client of the imgmirror that has sent the script. As root in the global zone:
#
#   curl -fsS MIRROR/node.sh | sh                                  adds the mirror to imgadm's sources
#   curl -fsS MIRROR/node.sh | sh -s -- --only                     and removes the other image servers
#   curl -fsS MIRROR/node.sh | sh -s -- --prewarm base-64-lts ...  and installs images at each boot
#   curl -fsS MIRROR/node.sh | sh -s -- --undo                     takes all of that back
#
# A second run changes nothing. Each change is noted in /opt/custom/imgmirror/done first; --undo reads it.
set -eu
LC_ALL=C
export LC_ALL

mirror='@MIRROR@'
custom=/opt/custom
dir=$custom/imgmirror
method=$dir/prewarm
smf=$custom/smf/imgmirror-prewarm.xml
service=svc:/application/imgmirror-prewarm:default

usage() {
	cat <<END
usage: sh -s -- [--only] [--prewarm NAME...]
       sh -s -- --undo
  --only      removes the other image servers from imgadm's sources; sources of type docker stay
  --prewarm   installs images at each boot: UUID, NAME (the newest of the name) or NAME@VERSION
  --undo      takes back what earlier runs did, and puts removed sources back
END
}

say() { echo "node.sh: $*"; }
fail() {
	echo "node.sh: $*" >&2
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# place ends the script on every machine but a global zone of SmartOS.
place() {
	[ "$(uname -s)" = SunOS ] || fail "this is $(uname -s), and the script is for SmartOS; nothing is changed"
	[ "$(zonename)" = global ] || fail "this is a zone: run the script in the global zone; nothing is changed"
	have imgadm || fail "there is no imgadm: the script is for SmartOS; nothing is changed"
	have curl || fail "there is no curl; nothing is changed"
	[ "$(id -u)" = 0 ] || fail "root has to run the script; nothing is changed"
}

# --- what has been done, and how it is taken back

# note LINE: one change, written down once.
note() {
	if [ -f "$dir/done" ]; then
		while read -r line; do
			if [ "$line" = "$*" ]; then return 0; fi
		done <"$dir/done"
	fi
	echo "$*" >>"$dir/done"
}

# folder DIR...: makes the folders that are not there.
folder() {
	made=
	for d; do
		if [ ! -d "$d" ]; then
			mkdir "$d"
			made="$made $d"
		fi
	done
	for d in $made; do note "made $d"; done
}

undo() {
	if [ ! -f "$dir/done" ]; then
		say "nothing to take back: $dir/done is not there"
		return 0
	fi
	cp "$dir/done" "$tmp/done"
	if [ -f "$smf" ]; then
		svcadm disable -s "$service" || say "the service was not there"
		svccfg delete -f "$service" || say "the service was not there"
	fi
	while read -r what which type; do
		if [ "$what" = added ]; then imgadm sources -d "$which" </dev/null; fi
	done <"$tmp/done"
	# Without the question whether the source answers: it was there before.
	while read -r what which type; do
		if [ "$what" = removed ]; then imgadm sources -f -a "$which" -t "$type" </dev/null; fi
	done <"$tmp/done"
	rm -f "$smf" "$method" "$dir/imgmirror" "$dir/imgmirror.new" "$dir/ca.pem" "$dir/done"
	for d in "$custom/smf" "$dir" "$custom"; do
		while read -r what which; do
			if [ "$what $which" = "made $d" ]; then rmdir "$d" || say "$d is not empty, and stays"; fi
		done <"$tmp/done"
	done
	say "all is taken back"
}

# --- the way to the mirror

# fetch PATH FILE: a file of the mirror. A failure ends the script with what is wrong.
fetch() {
	code=0
	curl $unchecked -fsS --connect-timeout 15 -o "$2" "$mirror$1" 2>"$tmp/error" || code=$?
	if [ $code != 0 ]; then explain $code "$1"; fi
}

# explain CODE PATH: what an exit code of curl means here.
explain() {
	host=${mirror#*://}
	host=${host%%/*}
	cat "$tmp/error" >&2
	case $1 in
	5 | 6) fail "DNS: this node does not know the name in $host: see /etc/resolv.conf, or use the address" ;;
	7) fail "port: $host takes no connection: does the mirror run there, at this port, behind no firewall?" ;;
	22) fail "the mirror answers $mirror$2 with an error: see its log" ;;
	28) fail "no answer from $host within 15 s: a firewall or a wrong route is between" ;;
	35 | 52 | 56) fail "$host does not speak ${mirror%%:*} at this port: try the other of http and https" ;;
	51 | 60 | 77) distrust ;;
	esac
	fail "curl cannot fetch $mirror$2 (exit code $1)"
}

# distrust explains a certificate that is not trusted, and what imgadm can do about it.
distrust() {
	theirs=$(curl -ksSI --connect-timeout 15 "$mirror/ping" 2>/dev/null | sed -n 's/^[Dd]ate: *//p' | tr -d '\015') || :
	cat >&2 <<END
node.sh: certificate: this node cannot verify the one of $mirror
  clock:  the mirror has ${theirs:-an unknown time},
          this node has  $(date -u '+%a, %d %b %Y %H:%M:%S GMT'). If they differ, set this clock first.
  imgadm: trusts only the authorities that it was built with, and takes no certificate of your own.
          Its option -k does the opposite of its description: it turns the check on. So give the mirror
          - plain http, on a network that you trust: imgadm checks the sum of each image in any case;
          - or a certificate of a public authority;
          - or no check at all: export IMGADM_INSECURE=1 before this script and before each later imgadm.
END
	exit 1
}

# first_uuid: the uuid of the first manifest that comes in.
first_uuid() { tr ',{' '\012\012' | sed -n 's/^ *"uuid" *: *"\([-0-9a-f]*\)".*/\1/p' | sed 1q; }

# prove brings one manifest from the mirror, and leaves its uuid in image.
prove() {
	fetch /ping "$tmp/ping"
	grep '"imgapi": *true' "$tmp/ping" >/dev/null || fail "$mirror is no image server: is it the address for clients?"
	fetch '/images?limit=1' "$tmp/list"
	image=$(first_uuid <"$tmp/list")
	if [ -z "$image" ]; then
		say "the mirror answers, and lists no image yet"
		return 0
	fi
	fetch "/images/$image" "$tmp/manifest"
	[ "$(first_uuid <"$tmp/manifest")" = "$image" ] || fail "this is not the manifest of $image: is a proxy between?"
	say "the mirror answers: the manifest of $image has come"
}

# --- imgadm's sources

# sources: a line "URL TYPE" for each, in imgadm's order.
sources() {
	imgadm sources -v | while read -r a b _; do
		case $a in
		*://*) echo "$a ${b:-imgapi}" ;;
		*) case $b in *://*) echo "$b $a" ;; esac ;;
		esac
	done
}

# add makes the mirror a source.
add() {
	sources >"$tmp/sources"
	while read -r url type; do
		if [ "$url" = "$mirror" ]; then
			say "imgadm has the mirror already"
			return 0
		fi
	done <"$tmp/sources"
	note "added $mirror imgapi"
	imgadm sources -a "$mirror" || fail "curl reaches the mirror, and imgadm does not.
  With https: imgadm has its own list of authorities. Plain http, or IMGADM_INSECURE=1, needs none; -k is of no help."
}

# others names, or with --only removes, the image servers beside the mirror.
others() {
	sources >"$tmp/sources"
	first=yes before=yes
	while read -r url type; do
		case $url,$type in
		"$mirror",*) before= ;;
		*,docker) ;;
		*)
			if [ "$only" ]; then
				note "removed $url $type"
				imgadm sources -d "$url" </dev/null
			elif [ "$before" ]; then
				first=
				say "imgadm asks $url before the mirror; --only removes it"
				if [ "$type" = imgapi ] && ! curl -ksS --connect-timeout 5 -m 10 -o "$tmp/ping" "$url/ping" 2>/dev/null; then
					say "warning: $url does not answer, and imgadm fails at it before it asks the mirror"
				fi
			fi
			;;
		esac
	done <"$tmp/sources"
	if [ "$first" ] && [ "$image" ]; then
		imgadm show "$image" >/dev/null || fail "imgadm cannot read the manifest of $image from the mirror"
		say "imgadm reads the manifest too: imgadm import $image"
	fi
}

# --- images at each boot

sum_of() {
	if have digest; then
		digest -a sha256 "$1"
	else
		sha256sum "$1" | sed 's/ .*//'
	fi
}

# program brings the program for this machine, once.
program() {
	code=0
	curl $unchecked -fsS --connect-timeout 15 -o "$tmp/sums" "$mirror/dist/SHA256SUMS" 2>"$tmp/error" || code=$?
	if [ $code = 22 ]; then fail "the mirror hands out no program: dist_dir in its configuration names no folder"; fi
	if [ $code != 0 ]; then explain $code /dist/SHA256SUMS; fi
	name='' sum=''
	while read -r s n; do
		case ${n#\*} in
		imgmirror*illumos-amd64)
			[ -z "$name" ] || fail "dist_dir of the mirror has more than one program for this machine: $name, $n"
			name=${n#\*} sum=$s
			;;
		esac
	done <"$tmp/sums"
	[ "$name" ] || fail "dist_dir of the mirror has no program for this machine (imgmirror-VERSION-illumos-amd64)"
	if [ -f "$dir/imgmirror" ] && [ "$(sum_of "$dir/imgmirror")" = "$sum" ]; then
		say "$dir/imgmirror is $name already"
		return 0
	fi
	fetch "/dist/$name" "$dir/imgmirror.new"
	if [ "$(sum_of "$dir/imgmirror.new")" != "$sum" ]; then
		rm -f "$dir/imgmirror.new"
		fail "$name has not the sum of SHA256SUMS: nothing of it is kept"
	fi
	chmod 755 "$dir/imgmirror.new"
	mv "$dir/imgmirror.new" "$dir/imgmirror"
	say "$dir/imgmirror is $name"
}

# put FILE: stdin becomes FILE. changed is set if FILE was another before.
put() {
	cat >"$tmp/put"
	if ! cmp -s "$tmp/put" "$1"; then
		cp "$tmp/put" "$1"
		changed=yes
	fi
}

# prewarm NAMES: the program, and the service that installs images at boot.
prewarm() {
	folder "$custom/smf"
	if [ "${SSL_CERT_FILE:-}" ]; then cp "$SSL_CERT_FILE" "$dir/ca.pem"; fi
	program
	changed=
	put "$method" <<END
#!/bin/sh
# Installs images of the mirror into the zpool. The service imgmirror-prewarm runs this at each boot.
PATH=/usr/bin:/usr/sbin:/sbin:\$PATH
export PATH
if [ -f $dir/ca.pem ]; then
	SSL_CERT_FILE=$dir/ca.pem
	export SSL_CERT_FILE
fi

# resolve NAME: the uuid of the newest image of a name, or of its version; a UUID is taken as it is.
resolve() {
	case \$1 in
	????????-????-????-????-????????????) echo "\$1"; return ;;
	*@*) query="name=\${1%@*}&version=\${1#*@}" ;;
	*) query="name=\$1" ;;
	esac
	curl -fsS --connect-timeout 15 "$mirror/images?\$query&sort=published_at.desc&limit=1" |
		tr ',{' '\\012\\012' | sed -n 's/^ *"uuid" *: *"\\([-0-9a-f]*\\)".*/\\1/p' | sed 1q
}

# once NAME...: tries to install all images; a name that fails does not stop the others.
once() {
	failed=
	for name; do
		uuid=\$(resolve "\$name")
		if [ -z "\$uuid" ]; then
			echo "\$name: the mirror has no such image, or does not answer"
			failed=yes
		else
			$dir/imgmirror install -q --from "$mirror" "\$uuid" || failed=yes
		fi
	done
	[ -z "\$failed" ]
}

try=1
until once $1; do
	# 95: the service goes into maintenance; svcadm clear tries again.
	if [ \$try = 10 ]; then exit 95; fi
	try=\$((try + 1))
	sleep 60
done
END
	chmod 755 "$method"
	restart=$changed changed=
	put "$smf" <<END
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE service_bundle SYSTEM "/usr/share/lib/xml/dtd/service_bundle.dtd.1">
<!-- Installs images of the mirror at each boot. node.sh has written the file, and can undo that. -->
<service_bundle type="manifest" name="imgmirror-prewarm">
  <service name="application/imgmirror-prewarm" type="service" version="1">
    <create_default_instance enabled="true"/>
    <single_instance/>
    <dependency name="network" grouping="require_all" restart_on="none" type="service">
      <service_fmri value="svc:/milestone/network:default"/>
    </dependency>
    <dependency name="filesystem" grouping="require_all" restart_on="none" type="service">
      <service_fmri value="svc:/system/filesystem/local"/>
    </dependency>
    <dependency name="zones" grouping="optional_all" restart_on="none" type="service">
      <service_fmri value="svc:/system/filesystem/smartdc"/>
    </dependency>
    <exec_method type="method" name="start" exec="$method" timeout_seconds="0"/>
    <exec_method type="method" name="stop" exec=":kill" timeout_seconds="120"/>
    <property_group name="startd" type="framework">
      <propval name="duration" type="astring" value="transient"/>
    </property_group>
    <stability value="Evolving"/>
    <template>
      <common_name>
        <loctext xml:lang="C">images of the mirror at boot</loctext>
      </common_name>
    </template>
  </service>
</service_bundle>
END
	if [ "$changed" ]; then
		svccfg import "$smf" # starts the service
	elif [ "$restart" ]; then
		svcadm clear "$service" 2>/dev/null || svcadm restart "$service"
	fi
	say "at each boot, and now: $1"
	say "how it goes: tail -f \$(svcs -L $service)"
}

main() {
	only='' names='' mode=add
	while [ $# -gt 0 ]; do
		case $1 in
		--only) only=yes ;;
		--undo) mode=undo ;;
		--prewarm) mode=prewarm ;;
		-h | --help)
			usage
			exit 0
			;;
		*)
			case $mode,$1 in
			prewarm,*[!A-Za-z0-9._@-]* | prewarm,-* | prewarm, | add,* | undo,*)
				echo "node.sh: $1 is no option, and no name of an image" >&2
				usage >&2
				exit 2
				;;
			esac
			names="$names $1"
			;;
		esac
		shift
	done
	if [ $mode = prewarm ] && [ -z "$names" ]; then
		usage >&2
		exit 2
	fi
	place
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	if [ $mode = undo ]; then
		undo
		return 0
	fi
	unchecked=
	if [ "${IMGADM_INSECURE:-}" ]; then unchecked=-k; fi
	prove
	folder "$custom" "$dir"
	add
	others
	if [ $mode = prewarm ]; then prewarm "${names# }"; fi
}

# The last line: a script that has come in part does nothing.
main "$@"

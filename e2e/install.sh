#!/bin/sh
# Installs what the tests run beside Go and Node, on Debian and its like:
# packages by apt-get, the node client and axe-core by npm. It does nothing when all is
# there, so it may run before every test. With the argument "bench" it installs only
# what the bench runs.
#
# As root, or with sudo that asks for no password. Where neither is to be had,
# it names what is missing: with CI=true that is a failure, else the tests that
# need it are skipped.
set -eu
cd "$(dirname "$0")"

have() { command -v "$1" >/dev/null 2>&1; }

lack() {
	echo "e2e/install.sh: $*" >&2
	if [ "${CI:-}" = true ]; then exit 1; fi
}

packages=
have nginx || packages="$packages nginx-light"
have varnishd || packages="$packages varnish"
# The race detector needs a C compiler and the C library's headers, and so does the bench.
echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1 || packages="$packages gcc libc6-dev"
only=${1:-}
if [ "$only" != bench ]; then
	have make || packages="$packages make"
	have curl || packages="$packages curl"
	have strace || packages="$packages strace"
	have xz || packages="$packages xz-utils"
	have ip || packages="$packages iproute2"
	have unshare || packages="$packages util-linux"
	have openssl || packages="$packages openssl"
	have bzip2 || packages="$packages bzip2"
	# A ZFS that runs as a program: the tests make pools of their own on files.
	[ -x /usr/sbin/zfs ] || have zfs || packages="$packages zfs-fuse"
	# Verifies the unit of the packages; what runs it is no part of the tests.
	have systemd-analyze || packages="$packages systemd"
	have rpm || packages="$packages rpm"
	have shellcheck || packages="$packages shellcheck"
	have groff || packages="$packages groff-base"
	# promtool checks the rules and questions of the monitoring; the server itself does not run.
	have promtool || packages="$packages prometheus"
	# The shells that the script for nodes runs under.
	have dash || packages="$packages dash"
	have minisign || packages="$packages minisign"
	# The browser of the tests of the page, with a font for its pictures.
	have chromium || packages="$packages chromium fonts-dejavu-core"
fi

install_packages() {
	if [ "$(id -u)" = 0 ]; then
		sudo=
	elif have sudo && sudo -n true 2>/dev/null; then
		sudo="sudo -n"
	else
		lack "missing packages, and neither root nor sudo to install them:$packages"
		return
	fi
	# No package's service is started by being installed.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap '$sudo rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
		$sudo chmod 755 $policy
	fi
	$sudo apt-get -q -o Acquire::Retries=3 update
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 \
		install --no-install-recommends $packages
}

if [ -n "$packages" ]; then
	if have apt-get; then
		install_packages
	else
		lack "missing, and no apt-get to install them:$packages"
	fi
fi

if [ "$only" = bench ]; then exit 0; fi

# The node client, and axe-core for the browser: again only when the lock file has changed since.
stamp=node/node_modules/.installed
if ! have npm; then
	lack "missing: node and npm"
elif ! cmp -s node/package-lock.json $stamp; then
	(cd node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
	cp node/package-lock.json $stamp
fi

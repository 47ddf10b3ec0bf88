#!/bin/sh
# The version of this checkout, a semantic one: clients see it in /ping.
#
#   v1.2.0 here                   1.2.0
#   five commits later            1.2.0+5.gaf3c52d1
#   a clone without any tag       0.1.0-gaf3c52d1
set -eu
cd "$(dirname "$0")"
if tag=$(git describe --tags --match 'v[0-9]*' --abbrev=8 2>/dev/null); then
	echo "$tag" | sed 's/^v//; s/-\([0-9]*\)-\(g[0-9a-f]*\)$/+\1.\2/'
else
	echo "0.1.0-g$(git rev-parse --short=8 HEAD 2>/dev/null || echo unknown)"
fi

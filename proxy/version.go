package proxy

import (
	"slices"

	"github.com/Masterminds/semver/v3"
)

// apiVersion is the version of IMGAPI that the server speaks.
const apiVersion = "2.0.0"

// spoken are the versions that a client may ask for, oldest first. The versions differ in
// "channels" alone (spec 2.2).
var spoken = [...]*semver.Version{semver.MustParse("1.0.0"), semver.MustParse(apiVersion)}

// satisfiedBy reads an Accept-Version header: "" (an old client) or a semver range. The result is
// the major version of the newest spoken version in the range; 0 for a range without one.
func satisfiedBy(header string) int {
	if major := satisfiedByUsual([]byte(header)); major > 0 {
		return major
	}
	if len(header) > 128 {
		return 0
	}
	ranges, err := semver.NewConstraint(header)
	if err != nil {
		return 0
	}
	for _, v := range slices.Backward(spoken[:]) {
		if ranges.Check(v) {
			return int(v.Major())
		}
	}
	return 0
}

// satisfiedByUsual is satisfiedBy for the usual values; 0 for any other.
func satisfiedByUsual(header []byte) int {
	switch string(header) {
	case "*", "~2":
		return 2
	case "", "~1":
		return 1
	}
	return 0
}

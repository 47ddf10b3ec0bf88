package proxy

import (
	"slices"

	"github.com/Masterminds/semver/v3"
)

// apiVersion is the version of IMGAPI that is spoken.
const apiVersion = "2.0.0"

// spoken are the versions that a client may ask for. They differ in nothing
// but "channels" (spec 2.2).
var spoken = [...]*semver.Version{semver.MustParse("1.0.0"), semver.MustParse(apiVersion)}

// satisfiedBy reads an Accept-Version header: "" (an old client) or a semver range. It gives the
// major version of the newest spoken one that satisfies it; 0 when none does.
func satisfiedBy(header string) int {
	switch header { // what clients send
	case "*", "~2":
		return 2
	case "", "~1":
		return 1
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

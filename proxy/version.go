package proxy

import (
	"github.com/Masterminds/semver/v3"
)

// apiVersion is the version of IMGAPI that is spoken.
const apiVersion = "2.0.0"

// spoken are the versions that a client may ask for. They differ in nothing
// but "channels" (spec 2.2).
var spoken = [...]*semver.Version{semver.MustParse("1.0.0"), semver.MustParse(apiVersion)}

// versionSatisfiable reads an Accept-Version header: "" (an old client) or a
// semver range that a spoken version satisfies.
func versionSatisfiable(header string) bool {
	switch header {
	case "", "*", "~2", "~1": // what clients send
		return true
	}
	if len(header) > 128 {
		return false
	}
	ranges, err := semver.NewConstraint(header)
	if err != nil {
		return false
	}
	for _, v := range spoken {
		if ranges.Check(v) {
			return true
		}
	}
	return false
}

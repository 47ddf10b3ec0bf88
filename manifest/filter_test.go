package manifest

import (
	"errors"
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	m := parse(t, v2With(fileA+`,"origin":"`+idC+`","description":"A base image, \u00e9","tags":{"role":"os","n":12,"yes":true,"none":null,"a.b":"c=d","obj":{}}`))
	f := func(filter string, want bool) {
		t.Helper()
		got, err := ParseFilter(filter)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		if got.Match(m) != want {
			t.Errorf("%s: %v", filter, !want)
		}
		if again, err := ParseFilter(got.String()); err != nil || again != got {
			t.Errorf("%s is written %s: %v", filter, got, err)
		}
		if strings.Contains(filter, "!=") { // what "not" says, "equal" denies
			equal, err := ParseFilter(strings.Replace(filter, "!=", "=", 1))
			if err != nil || equal.Match(m) == want {
				t.Errorf("%s agrees with %s (%v)", equal, filter, err)
			}
		}
	}
	f("uuid="+idA, true)
	f("uuid="+strings.ToUpper(idA), true)
	f("uuid="+idB, false)
	f("uuid!="+idB, true)
	f("uuid=~aaaaaaaa", true)
	f("name=base", true)
	f("name=bas", false)
	f("name=Base", false)
	f("name=~as", true)
	f("name=~", true)
	f("name=~AS", false)
	f("name!=base", false)
	f("name!=other", true)
	f("name=", false)
	f("version=1.0", true)
	f("os=smartos", true)
	f("os!=linux", true)
	f("type=zone-dataset", true)
	f("type=~dataset", true)
	f("state=active", true)
	f("state!=disabled", true)
	f("owner="+idB, true)
	f("public=true", true)
	f("public!=true", false)
	f("public=FALSE", false)
	f("origin="+idC, true)
	f("origin=", false)
	f("origin!=", true)
	f("published_at=2014-01-02T03:04:05Z", true)
	f("published_at=~2014-01", true)
	f("published_at=~2015", false)
	f("description=A base image, é", true)
	f("description=~base", true)
	f("tag.role=os", true)
	f("tag.role=o", false)
	f("tag.role=~o", true)
	f("tag.role!=os", false)
	f("tag.n=12", true)
	f("tag.yes=true", true)
	f("tag.a.b=c=d", true)
	f("tag.missing=x", false)
	f("tag.missing!=x", true)
	f("tag.missing=", true)
	f("tag.obj=", true)

	plain := parse(t, v2With(fileA))
	for filter, want := range map[string]bool{"origin=": true, "origin!=": false, "description=": true, "tag.role=os": false} {
		if got, err := ParseFilter(filter); err != nil || got.Match(plain) != want {
			t.Errorf("%s: %v, %v", filter, !want, err)
		}
	}
	if (Filter{}).Match(m) {
		t.Error("the zero Filter matches")
	}
}

func TestFilterErrors(t *testing.T) {
	for in, say := range map[string]string{
		"":                "want field=value",
		"name":            "want field=value",
		"name~x":          "want field=value",
		"=x":              "no field",
		"!=x":             "no field",
		"nam=x":           `no field "nam"`,
		"Name=x":          `no field "Name"`,
		"urn=x":           "tag.KEY",
		"tag.=x":          "needs a key",
		"tag=x":           `no field "tag"`,
		"uuid=x":          "not a uuid",
		"uuid=":           "not a uuid",
		"origin!=x":       "not a uuid",
		"public=yes":      "true or false",
		"public=":         "true or false",
		"public=1":        "true or false",
		"state=broken":    "active, disabled",
		"state!=Active":   "active, disabled",
		"uuid=" + idA[1:]: "not a uuid",
	} {
		_, err := ParseFilter(in)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), say) || !strings.Contains(err.Error(), `"`+in+`"`) {
			t.Errorf("%q: %v, want %q", in, err, say)
		}
	}
}

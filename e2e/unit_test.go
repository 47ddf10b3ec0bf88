package e2e

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"imgmirror/config"
)

// The settings that packages install say where the data is, and nothing else does: service and verbs agree.
func TestShippedSettings(t *testing.T) {
	var shipped map[string]any
	if err := yaml.Unmarshal([]byte(readRoot(t, "deploy/etc/imgmirror.yaml")), &shipped); err != nil {
		t.Fatal(err)
	}
	if len(shipped) != 1 || shipped["data_dir"] != dataDir {
		t.Errorf("the shipped settings are %v, want data_dir: %s", shipped, dataDir)
	}
	for _, file := range []string{"imgmirror.service", "smf/imgmirror.xml", "smf/imgmirror-gz.xml", "smf/method"} {
		text := readRoot(t, "deploy/"+file)
		for _, setting := range []string{config.EnvPrefix, "--data-dir", "--config", "EnvironmentFile"} {
			if strings.Contains(text, setting) {
				t.Errorf("deploy/%s sets %s: the verbs would not know", file, setting)
			}
		}
	}
	if !strings.Contains(readRoot(t, "deploy/nfpm.yaml"), "dst: "+config.DefaultFile) {
		t.Errorf("packages do not install %s", config.DefaultFile)
	}
}

// unitOf reads a systemd unit.
func unitOf(t *testing.T, text string) map[string]string {
	t.Helper()
	unit := make(map[string]string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			unit[key] = value
		}
	}
	return unit
}

func TestSystemdUnit(t *testing.T) {
	unit := unitOf(t, readRoot(t, "deploy/imgmirror.service"))
	for key, value := range map[string]string{
		"Type":                     "notify",
		"ExecStart":                "/usr/bin/imgmirror serve",
		"User":                     "imgmirror",
		"StateDirectory":           filepath.Base(dataDir),
		"RestartPreventExitStatus": "95 96",
	} {
		if unit[key] != value {
			t.Errorf("%s=%s, want %s", key, unit[key], value)
		}
	}
	stop, err := time.ParseDuration(unit["TimeoutStopSec"])
	if drain := config.Defaults().Clients.DrainTimeout; err != nil || stop <= drain {
		t.Errorf("TimeoutStopSec=%s, draining takes %v", unit["TimeoutStopSec"], drain)
	}
	if w, err := time.ParseDuration(unit["WatchdogSec"]); err != nil || w < 30*time.Second {
		t.Errorf("WatchdogSec=%s: a busy host needs 30 s at least", unit["WatchdogSec"])
	}
	user := strings.Fields(readRoot(t, "deploy/imgmirror.sysusers")[strings.Index(readRoot(t, "deploy/imgmirror.sysusers"), "\nu ")+1:])
	if user[1] != unit["User"] || user[len(user)-1] != dataDir {
		t.Errorf("the user of sysusers is %q", user)
	}
}

// smfRules are the rules of service_bundle(5) for the elements that the manifests use: the children in their order,
// each with how often it may be there ("", ?, *, +), and the attributes, those that must be there with a "!".
var smfRules = map[string]struct{ children, attributes string }{
	"service_bundle":          {"service*", "type! name!"},
	"service":                 {"create_default_instance? single_instance? restarter? dependency* dependent* method_context? exec_method* notification_parameters* property_group* instance* stability? template?", "name! type! version!"},
	"create_default_instance": {"", "enabled!"},
	"single_instance":         {"", ""},
	"dependency":              {"service_fmri* stability? propval* property*", "name! grouping! restart_on! type!"},
	"service_fmri":            {"", "value!"},
	"method_context":          {"method_profile? method_credential? method_environment?", "working_directory project resource_pool security_flags"},
	"method_credential":       {"", "user! group supp_groups privileges limit_privileges trusted_path"},
	"method_environment":      {"envvar+", ""},
	"envvar":                  {"", "name! value!"},
	"exec_method":             {"method_context? stability? propval* property*", "type! name! exec! timeout_seconds! delete"},
	"property_group":          {"stability? propval* property*", "name! type! delete"},
	"propval":                 {"", "name! type value! override"},
	"stability":               {"", "value!"},
	"template":                {"common_name description? documentation? pg_pattern*", ""},
	"common_name":             {"loctext+", ""},
	"description":             {"loctext+", ""},
	"loctext":                 {"", "lang!"},
}

// smfValues are the values that an attribute may have.
var smfValues = map[string]string{
	"service_bundle type": "archive manifest profile", "service type": "service restarter milestone", "create_default_instance enabled": "true false",
	"dependency grouping": "require_all require_any exclude_all optional_all", "dependency restart_on": "error restart refresh none",
	"dependency type": "service path", "exec_method type": "method monitor", "propval type": "count integer opaque host hostname net_address boolean astring ustring time uri fmri",
	"stability value": "Standard Stable Evolving Unstable External Obsolete",
}

// smfFaults is what breaks smfRules in a manifest.
func smfFaults(text string) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	type element struct {
		name     string
		children []string
	}
	var open []element
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return faults
		}
		if err != nil {
			return append(faults, err.Error())
		}
		switch token := token.(type) {
		case xml.StartElement:
			name := token.Name.Local
			rules, known := smfRules[name]
			if !known {
				fault("there is no element %s", name)
			}
			if len(open) > 0 {
				open[len(open)-1].children = append(open[len(open)-1].children, name)
			} else if name != "service_bundle" {
				fault("the root is %s", name)
			}
			open = append(open, element{name: name})
			allowed := strings.Fields(rules.attributes)
			var has []string
			for _, a := range token.Attr {
				has = append(has, a.Name.Local)
				if !slices.Contains(allowed, a.Name.Local) && !slices.Contains(allowed, a.Name.Local+"!") {
					fault("%s has no attribute %s", name, a.Name.Local)
				}
				if values := smfValues[name+" "+a.Name.Local]; values != "" && !slices.Contains(strings.Fields(values), a.Value) {
					fault("%s: %s=%q is none of %s", name, a.Name.Local, a.Value, values)
				}
			}
			for _, a := range allowed {
				if must, ok := strings.CutSuffix(a, "!"); ok && !slices.Contains(has, must) {
					fault("%s lacks %s", name, must)
				}
			}
		case xml.CharData:
			if text := strings.TrimSpace(string(token)); text != "" && (len(open) == 0 || open[len(open)-1].name != "loctext") {
				fault("text %q", text)
			}
		case xml.EndElement:
			last := open[len(open)-1]
			open = open[:len(open)-1]
			rule := regexp.MustCompile(`\w+`).ReplaceAllString(smfRules[last.name].children, "(?:$0,)")
			if have := strings.Join(append(last.children, ""), ","); !regexp.MustCompile("^" + strings.ReplaceAll(rule, " ", "") + "$").MatchString(have) {
				fault("%s has %s, want %s", last.name, have, smfRules[last.name].children)
			}
		}
	}
}

// The rules find what they are there to find.
func TestSMFFaults(t *testing.T) {
	whole := readRoot(t, "deploy/smf/imgmirror.xml")
	f := func(old, replacement, want string) {
		t.Helper()
		if !strings.Contains(whole, old) {
			t.Fatalf("%s is not in the manifest", old)
		}
		if got := strings.Join(smfFaults(strings.Replace(whole, old, replacement, 1)), "; "); !strings.Contains(got, want) {
			t.Errorf("%s in the place of %s: %q, want %q", replacement, old, got, want)
		}
	}
	f(`<single_instance/>`, `<single_instance/><single_instance/>`, "service has create_default_instance,single_instance,single_instance,")
	f(`<single_instance/>`, `<singleton/>`, "there is no element singleton")
	f(` timeout_seconds="60"`, ``, "exec_method lacks timeout_seconds")
	f(`grouping="require_all"`, `grouping="all"`, `grouping="all" is none of`)
	f(`type="astring"`, `kind="astring"`, "propval has no attribute kind")
	f(`</service_bundle>`, ``, "unexpected EOF")
}

// The SMF manifests keep to the rules, and start what the archive puts into /opt/imgmirror.
func TestSMFManifests(t *testing.T) {
	for file, user := range map[string]string{"imgmirror.xml": "imgmirror", "imgmirror-gz.xml": "root"} {
		t.Run(file, func(t *testing.T) {
			text := readRoot(t, "deploy/smf/"+file)
			for _, fault := range smfFaults(text) {
				t.Error(fault)
			}
			var manifest struct {
				Service struct {
					Name    string `xml:"name,attr"`
					Methods []struct {
						Name    string `xml:"name,attr"`
						Exec    string `xml:"exec,attr"`
						Timeout int    `xml:"timeout_seconds,attr"`
					} `xml:"exec_method"`
					User struct {
						Name string `xml:"user,attr"`
					} `xml:"method_context>method_credential"`
					Values []struct {
						Name  string `xml:"name,attr"`
						Value string `xml:"value,attr"`
					} `xml:"property_group>propval"`
				} `xml:"service"`
			}
			if err := xml.Unmarshal([]byte(text), &manifest); err != nil {
				t.Fatal(err)
			}
			s := manifest.Service
			if s.Name != "application/imgmirror" || s.User.Name != user {
				t.Errorf("the service %s runs as %q, want application/imgmirror as %s", s.Name, s.User.Name, user)
			}
			methods := make(map[string]string)
			for _, m := range s.Methods {
				methods[m.Name] = m.Exec
				if drain := config.Defaults().Clients.DrainTimeout.Seconds(); m.Name == "stop" && float64(m.Timeout) <= drain {
					t.Errorf("stop may take %d s, draining takes %v s", m.Timeout, drain)
				}
			}
			for name, exec := range map[string]string{"start": "/opt/imgmirror/smf/method", "stop": ":kill", "refresh": ":kill -HUP"} {
				if methods[name] != exec {
					t.Errorf("method %s is %q, want %q", name, methods[name], exec)
				}
			}
			// Without it the start method would have to return.
			if !slices.ContainsFunc(s.Values, func(v struct {
				Name  string `xml:"name,attr"`
				Value string `xml:"value,attr"`
			}) bool {
				return v.Name == "duration" && v.Value == "child"
			}) {
				t.Error("startd/duration is not child")
			}
		})
	}
}

// The version is that of the last tag; commits later follow as build metadata.
func TestVersion(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "deploy", "version.sh")
	if err := errors.Join(os.Mkdir(filepath.Dir(script), 0o755), os.WriteFile(script, []byte(readRoot(t, "deploy/version.sh")), 0o755)); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	want := func(pattern string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), script)
		cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		out, err := cmd.Output()
		if err != nil || !regexp.MustCompile("^"+pattern+"\n$").Match(out) {
			t.Errorf("version %q, %v; want %s", out, err, pattern)
		}
	}
	want(`0\.1\.0-gunknown`)
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "one")
	want(`0\.1\.0-g[0-9a-f]{8}`)
	git("tag", "other")
	git("tag", "v1.2.0-rc.1")
	want(`1\.2\.0-rc\.1`)
	git("commit", "-q", "--allow-empty", "-m", "two")
	want(`1\.2\.0-rc\.1\+1\.g[0-9a-f]{8}`)
	git("tag", "-a", "-m", "x", "v1.2.0")
	want(`1\.2\.0`)
}

// The scripts of packages and of the release are without the traps of the shell.
func TestShippedScripts(t *testing.T) {
	shellcheck := need(t, "shellcheck")
	var scripts []string
	for _, pattern := range []string{"*.sh", "smf/setup", "smf/method", "deb/*", "rpm/*"} {
		found, err := filepath.Glob(filepath.Join("../deploy", pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("deploy/%s: %q, %v", pattern, found, err)
		}
		scripts = append(scripts, found...)
	}
	if out, err := exec.CommandContext(t.Context(), shellcheck, append([]string{"--shell=sh"}, scripts...)...).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

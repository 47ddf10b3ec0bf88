package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"imgmirror/config"
)

// dataDir is where packages and the container image keep the data.
const dataDir = "/var/lib/imgmirror"

// readRoot reads a file of the repository, named from its root.
func readRoot(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(path.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every variable that a shipped file sets or suggests sets a key.
func TestDeployedVariables(t *testing.T) {
	known := make(map[string]bool)
	for _, key := range config.Keys() {
		known[config.EnvName(key)] = true
	}
	variable := regexp.MustCompile(`\b` + config.EnvPrefix + `[A-Z][A-Z0-9_]+`)
	for _, file := range []string{
		"Dockerfile", "docker-compose.yml", "deploy/imgmirror.yaml",
	} {
		for _, name := range variable.FindAllString(readRoot(t, file), -1) {
			if !known[name] && name != config.EnvPrefix+"KEY" {
				t.Errorf("%s: %s sets nothing", file, name)
			}
		}
	}
}

// dockerfile gives the arguments of each instruction, in order.
func dockerfile(t *testing.T) (instructions [][2]string) {
	t.Helper()
	text := strings.ReplaceAll(readRoot(t, "Dockerfile"), "\\\n", "")
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word != "" && !strings.HasPrefix(word, "#") {
			instructions = append(instructions, [2]string{word, strings.TrimSpace(rest)})
		}
	}
	return instructions
}

func TestDockerfile(t *testing.T) {
	var stages []string
	last := make(map[string][]string) // instructions of the last stage
	for _, in := range dockerfile(t) {
		word, args := in[0], in[1]
		switch word {
		case "FROM":
			fields := strings.Fields(args)
			stages = append(stages, fields[len(fields)-1])
			last = map[string][]string{}
			goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readRoot(t, "go.mod"))[1]
			if i := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "golang:") }); i >= 0 &&
				!strings.HasPrefix(fields[i], "golang:"+goVersion) {
				t.Errorf("built with %s, go.mod wants %s", fields[i], goVersion)
			}
		case "COPY":
			for _, f := range strings.Fields(args) {
				if stage, ok := strings.CutPrefix(f, "--from="); ok && !slices.Contains(stages, stage) {
					t.Errorf("COPY %s: no such stage", args)
				}
			}
		}
		last[word] = append(last[word], args)
	}
	if got := stages[len(stages)-1]; got != "scratch" {
		t.Errorf("the image is made from %s, want scratch", got)
	}
	want := func(word, value string) {
		t.Helper()
		if !slices.Contains(last[word], value) {
			t.Errorf("%s is %q, want %q", word, last[word], value)
		}
	}
	want("VOLUME", dataDir)
	for _, label := range []string{"title", "description", "licenses", "version", "revision"} {
		if !regexp.MustCompile(`\bimage\.` + label + `="[^"]+"`).MatchString(strings.Join(last["LABEL"], "")) {
			t.Errorf("there is no label %s: %q", label, last["LABEL"])
		}
	}
	want("ENV", config.EnvName("data_dir")+"="+dataDir)
	want("EXPOSE", strings.TrimPrefix(config.Defaults().Listen, ":"))
	if user := strings.Join(last["USER"], ""); !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user) {
		t.Errorf("USER %q is not a numeric user other than root", user)
	}

	// Entry point and health check run the binary that was copied, and the
	// source has their verbs.
	binary := ""
	for _, args := range last["COPY"] {
		if f := strings.Fields(args); path.Base(f[len(f)-1]) == "imgmirror" && strings.HasPrefix(f[len(f)-2], "/out/imgmirror") {
			binary = f[len(f)-1]
		}
	}
	verb := func(word, jsonArgs string) {
		t.Helper()
		var args []string
		if err := json.Unmarshal([]byte(jsonArgs), &args); err != nil {
			t.Errorf("%s %s: %v", word, jsonArgs, err)
			return
		}
		if len(args) != 2 || args[0] != binary {
			t.Errorf("%s %q does not run %s with one verb", word, args, binary)
			return
		}
		if help, err := exec.Command(imgmirror, args[1], "--help").Output(); err != nil || !strings.Contains(string(help), "imgmirror "+args[1]) {
			t.Errorf("%s: there is no verb %s: %v", word, args[1], err)
		}
	}
	_, check, _ := strings.Cut(strings.Join(last["HEALTHCHECK"], ""), "CMD ")
	verb("HEALTHCHECK", check)
	verb("ENTRYPOINT and CMD", strings.TrimSuffix(strings.Join(last["ENTRYPOINT"], ""), "]")+", "+strings.TrimPrefix(strings.Join(last["CMD"], ""), "["))
}

// composeFile is docker-compose.yml.
type composeFile struct {
	Name     string
	Services map[string]composeService
	Volumes  map[string]any
}

type composeService struct {
	Profiles []string
	Build    struct {
		Context string
		Args    map[string]string
	}
	Image, Restart  string
	Command         []string
	DependsOn       []string `yaml:"depends_on"`
	Ports           []string
	Volumes         []string
	Environment     map[string]string
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
}

func readCompose(t *testing.T) (compose composeFile) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(readRoot(t, "docker-compose.yml")))
	d.KnownFields(true)
	if err := d.Decode(&compose); err != nil {
		t.Fatal(err)
	}
	return compose
}

// TestComposeProfiles: without a profile there is the mirror alone; what watches the mirror is pinned, on this host
// only, and has what it reads.
func TestComposeProfiles(t *testing.T) {
	compose := readCompose(t)
	var plain, watching []string
	for name, s := range compose.Services {
		if len(s.Profiles) == 0 {
			plain = append(plain, name)
			continue
		}
		watching = append(watching, name)
		if len(s.Profiles) != 1 || s.Profiles[0] != "monitoring" {
			t.Errorf("%s: profiles %q", name, s.Profiles)
		}
		if !regexp.MustCompile(`^[a-z]+/[a-z]+:v?\d+\.\d+\.\d+$`).MatchString(s.Image) {
			t.Errorf("%s: the image %q has no exact version", name, s.Image)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to the network", name, p)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, declared := compose.Volumes[from]; declared {
				continue
			}
			if _, err := os.Stat(path.Join("..", from)); err != nil || !strings.HasSuffix(v, ":ro") {
				t.Errorf("%s: volume %s: %v", name, v, err)
			}
		}
		for _, other := range s.DependsOn {
			if _, ok := compose.Services[other]; !ok {
				t.Errorf("%s: there is no service %s", name, other)
			}
		}
	}
	slices.Sort(watching)
	if !slices.Equal(plain, []string{"imgmirror"}) || !slices.Equal(watching, []string{"grafana", "prometheus"}) {
		t.Errorf("services %q, and %q with monitoring", plain, watching)
	}
	for _, s := range compose.Services {
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s has more rights than it needs", s.Image)
		}
	}
	// The admin listener is for the network of the file, and for no host beside.
	_, port, _ := strings.Cut(config.Defaults().Admin.Listen, ":")
	for _, p := range compose.Services["imgmirror"].Ports {
		if strings.HasSuffix(p, ":"+port) {
			t.Errorf("the admin listener is published: %s", p)
		}
	}
}

func TestCompose(t *testing.T) {
	compose := readCompose(t)
	if compose.Name != "imgmirror" {
		t.Fatalf("the project is %q", compose.Name)
	}
	s := compose.Services["imgmirror"]
	var args []string
	for _, in := range dockerfile(t) {
		if in[0] == "ARG" {
			name, _, _ := strings.Cut(in[1], "=")
			args = append(args, name)
		}
	}
	for name := range s.Build.Args {
		if !slices.Contains(args, name) {
			t.Errorf("the Dockerfile has no build argument %s", name)
		}
	}
	if s.Build.Context != "." {
		t.Errorf("context %q, want the root of the repository", s.Build.Context)
	}
	_, port, _ := strings.Cut(config.Defaults().Listen, ":")
	if !slices.ContainsFunc(s.Ports, func(p string) bool { return strings.HasSuffix(p, ":"+port) }) {
		t.Errorf("ports %q do not publish %s", s.Ports, port)
	}
	mounted := false
	for _, v := range s.Volumes {
		name, target, _ := strings.Cut(v, ":")
		if _, ok := compose.Volumes[name]; !ok && !strings.ContainsAny(name, "./") {
			t.Errorf("volume %s is not declared", name)
		}
		mounted = mounted || target == dataDir
	}
	if !mounted {
		t.Errorf("no volume at %s: %q", dataDir, s.Volumes)
	}
	grace, err := time.ParseDuration(s.StopGracePeriod)
	if drain := config.Defaults().Clients.DrainTimeout; err != nil || grace <= drain {
		t.Errorf("stop_grace_period %q is not above the drain timeout, %v", s.StopGracePeriod, drain)
	}
}

// The context of the image has all that the build needs: each folder with a package of the binary, and each file.
func TestDockerContext(t *testing.T) {
	ignore := readRoot(t, ".dockerignore")
	needs := map[string]bool{"go.mod": true, "go.sum": true, "LICENSE": true}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/imgmirror")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if ours, ok := strings.CutPrefix(strings.TrimSpace(line), module); ok {
			folder, _, _ := strings.Cut(ours, "/")
			needs[folder] = true
		}
	}
	for name := range needs {
		if !strings.Contains(ignore, "\n!"+name+"\n") {
			t.Errorf(".dockerignore keeps %s out", name)
		}
	}
}

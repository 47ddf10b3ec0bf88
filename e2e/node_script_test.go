package e2e

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// nodeSource is one of imgadm's sources.
type nodeSource struct{ URL, Type string }

func (s nodeSource) String() string { return fmt.Sprintf("%q image source %q", s.Type, s.URL) }

// client is imgadm with this one source.
func (s nodeSource) client(t testing.TB) *imgadm {
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Error(err)
	}
	return &imgadm{host: u.Host, kind: s.Type, reqID: uuid.NewString(), files: make(chan *socket, 5)}
}

// ServeHTTP plays imgadm for the stand-in on the node, which posts its arguments, a line each: the
// words are imgadm's, the requests those of the replay. A failure has status 500.
func (n *scriptNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		n.Error(err)
	}
	args := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	n.called = append(n.called, "imgadm "+strings.Join(args, " "))
	switch {
	case args[0] == "show" && len(args) == 2:
		err = n.imgadmShow(w, args[1])
	case args[0] == "sources" && len(args) > 1:
		err = n.imgadmSources(w, args[1:])
	default:
		err = fmt.Errorf("unexpected: imgadm %q", args)
		n.Error(err)
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintln(w, err)
	}
}

// imgadmShow is "imgadm show": the sources are asked in order.
func (n *scriptNode) imgadmShow(w io.Writer, id string) error {
	for _, s := range n.has {
		if s.Type == "docker" {
			continue
		}
		c := s.client(n)
		m, err := c.show(id)
		c.json.close()
		if e, ok := errors.AsType[*imgadmError](err); ok && e.status == 404 {
			continue
		}
		if err != nil {
			return err
		}
		return json.NewEncoder(w).Encode(m)
	}
	return errors.New("ImageNotFound")
}

// imgadmSources is "imgadm sources" with -v, -a and -d.
func (n *scriptNode) imgadmSources(w io.Writer, args []string) error {
	force, kind, add, del := false, "imgapi", "", ""
	for len(args) > 0 {
		option := args[0]
		args = args[1:]
		switch option {
		case "-v":
		case "-f":
			force = true
		case "-a":
			add, args = args[0], args[1:]
		case "-d":
			del, args = args[0], args[1:]
		case "-t":
			kind, args = args[0], args[1:]
		default:
			n.Errorf("unexpected: imgadm sources %s", option)
		}
	}
	at := slices.IndexFunc(n.has, func(s nodeSource) bool { return s.URL == add+del })
	s := nodeSource{add, kind}
	switch {
	case add != "" && at >= 0:
		fmt.Fprintf(w, "Already have %s, no change\n", s)
	case add != "":
		if !force {
			c := s.client(n)
			defer func() { c.json.close() }()
			if err := c.addSource(); err != nil {
				return fmt.Errorf("imgadm sources: error (SourcePing): %w", err)
			}
		}
		n.has = append(n.has, s)
		fmt.Fprintf(w, "Added %s\n", s)
	case del != "" && at < 0:
		fmt.Fprintf(w, "Do not have image source %q, no change\n", del)
	case del != "":
		fmt.Fprintf(w, "Deleted %s\n", n.has[at])
		n.has = slices.Delete(n.has, at, at+1)
	default:
		fmt.Fprintf(w, "%-40s %-8s %s\n", "URL", "TYPE", "INSECURE")
		for _, s := range n.has {
			fmt.Fprintf(w, "%-40s %-8s %s\n", s.URL, s.Type, "false")
		}
	}
	return nil
}

// nodeShells are the shells that the script runs under.
var nodeShells = [][]string{{"dash"}, {"bash", "--posix"}}

// scriptNode is a SmartOS node: its tools are stand-ins that write down how they are called.
type scriptNode struct {
	testing.TB
	dir    string
	shell  []string
	system map[string]string // what uname -s, zonename and id -u say
	has    []nodeSource      // imgadm's sources
	called []string          // of imgadm
}

func newScriptNode(t *testing.T, shell []string) *scriptNode {
	t.Helper()
	n := &scriptNode{TB: t, dir: t.TempDir(), shell: shell, system: map[string]string{"uname": "SunOS", "zonename": "global", "id": "0"}}
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	n.tool("imgadm", `printf '%s\n' "$@" | curl -sS --fail-with-body --data-binary @- `+server.URL)
	for _, name := range []string{"svccfg", "svcadm"} {
		n.tool(name, "echo \""+name+" $*\" >>"+n.dir+"/calls")
	}
	n.has = []nodeSource{{"https://images.smartos.org", "imgapi"}}
	return n
}

func (n *scriptNode) tool(name, text string) {
	n.Helper()
	path := filepath.Join(n.dir, "bin", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		n.Fatal(err)
	}
}

// sources are the URLs of imgadm's sources.
func (n *scriptNode) sources() string {
	var urls []string
	for _, s := range n.has {
		urls = append(urls, s.URL)
	}
	return strings.Join(urls, " ")
}

// calls are the calls of svccfg, svcadm and imgadm since the last question, without questions to imgadm.
func (n *scriptNode) calls() string {
	n.Helper()
	file := filepath.Join(n.dir, "calls")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.Fatal(err)
	}
	os.Remove(file)
	var calls []string
	for _, line := range append(strings.Split(strings.TrimSpace(string(text)), "\n"), n.called...) {
		if line != "" && line != "imgadm sources -v" && !strings.HasPrefix(line, "imgadm show ") {
			calls = append(calls, strings.ReplaceAll(line, n.dir, ""))
		}
	}
	n.called = nil
	return strings.Join(calls, "; ")
}

// tree is every file below the node's /opt.
func (n *scriptNode) tree() string {
	n.Helper()
	var names []string
	root := filepath.Join(n.dir, "opt")
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if path != root {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		n.Fatal(err)
	}
	return strings.Join(names, " ")
}

// run fetches the script from the URL and pipes it into the shell, as a user does. The node's /opt is
// a folder of the test.
func (n *scriptNode) run(mirror string, args ...string) (output string, code int) {
	n.Helper()
	script, err := exec.Command(need(n, "curl"), "-kfsS", mirror+"/node.sh").Output()
	if err != nil {
		n.Fatalf("curl %s/node.sh: %v", mirror, err)
	}
	if err := os.MkdirAll(filepath.Join(n.dir, "opt"), 0o755); err != nil {
		n.Fatal(err)
	}
	here := strings.Replace(string(script), "\ncustom=/opt/custom\n", "\ncustom="+n.dir+"/opt/custom\n", 1)
	if here == string(script) {
		n.Fatal("the script has no line custom=")
	}
	return n.pipe(here, args...)
}

func (n *scriptNode) pipe(script string, args ...string) (output string, code int) {
	n.Helper()
	for name, answer := range n.system {
		n.tool(name, "echo "+answer)
	}
	cmd := exec.Command(need(n, n.shell[0]), slices.Concat(n.shell[1:], []string{"-s", "--"}, args)...)
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = []string{"PATH=" + filepath.Join(n.dir, "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + n.TempDir()}
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		n.Fatal(err)
	}
	return string(out), 0
}

// does is run with an exit code and texts that the output must have.
func (n *scriptNode) does(mirror string, code int, texts []string, args ...string) {
	n.Helper()
	out, got := n.run(mirror, args...)
	if got != code {
		n.Fatalf("%v %q: exit code %d, want %d:\n%s", n.shell, args, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			n.Errorf("%v %q: no %q in\n%s", n.shell, args, text, out)
		}
	}
}

func (n *scriptNode) want(what, got, want string) {
	n.Helper()
	if got != want {
		n.Errorf("%v: %s:\n got %s\nwant %s", n.shell, what, got, want)
	}
}

// TestNodeScript: the mirror becomes a source, once; with --only the only image server; --undo leaves
// nothing.
func TestNodeScript(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	m.awaitList(len(sampleUUIDs))
	for _, shell := range nodeShells {
		t.Run(shell[0], func(t *testing.T) {
			t.Parallel()
			n := newScriptNode(t, shell)
			dead := "http://" + deadAddress(t)
			n.has = []nodeSource{{dead, "imgapi"}, {"https://docker.io", "docker"}, {"http://127.0.0.1:1/datasets", "dsapi"}}
			before := n.sources()
			n.does(m.url, 0, []string{"has come", "asks " + dead + " before the mirror; --only removes it", "warning: " + dead + " does not answer"})
			n.want("sources", n.sources(), before+" "+m.url)
			n.want("calls", n.calls(), "imgadm sources -a "+m.url)
			n.want("files", n.tree(), "custom custom/imgmirror custom/imgmirror/done")

			n.does(m.url, 0, []string{"imgadm has the mirror already"})
			n.want("calls of a second run", n.calls(), "")

			n.does(m.url, 0, []string{"imgadm reads the manifest too"}, "--only")
			n.want("sources, --only", n.sources(), "https://docker.io "+m.url)
			n.does(m.url, 0, nil, "--only")
			n.want("sources, --only again", n.sources(), "https://docker.io "+m.url)

			n.does(m.url, 0, []string{"all is taken back"}, "--undo")
			n.want("sources, --undo", n.sources(), "https://docker.io "+dead+" http://127.0.0.1:1/datasets")
			n.want("files, --undo", n.tree(), "")
			n.calls()
			n.does(m.url, 0, []string{"nothing to take back"}, "--undo")
			n.want("calls of a second --undo", n.calls(), "")

			// A source that was there before the script stays.
			n.has = []nodeSource{{m.url, "imgapi"}}
			n.does(m.url, 0, nil)
			n.does(m.url, 0, nil, "--undo")
			n.want("sources", n.sources(), m.url)
		})
	}
}

// deadAddress is an address where nothing listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestNodeScriptPrewarm: the program comes from dist_dir with its sum checked, and a service installs
// images at boot, with the program as it is built.
func TestNodeScriptPrewarm(t *testing.T) {
	t.Parallel()
	dist := t.TempDir()
	m := startMirror(t, settings{"dist_dir": dist}, samples(t))
	m.awaitList(len(sampleUUIDs))
	program := filepath.Join(dist, "imgmirror-1.2.3-illumos-amd64")
	base := sample(t, sampleBase)
	var version struct{ Version string }
	if err := json.Unmarshal(base.manifest, &version); err != nil {
		t.Fatal(err)
	}
	for _, shell := range nodeShells {
		t.Run(shell[0], func(t *testing.T) {
			n := newScriptNode(t, shell)
			n.does(m.url, 1, []string{"dist_dir of the mirror has no program for this machine"}, "--prewarm", "base")
			n.does(m.url, 0, nil, "--undo")
			n.calls()
			// A test has no pool: the program says what it would put where imgadm looks.
			text := "#!/bin/sh\necho \"$*\" >>$NODE/installs\nexec " + imgmirror + " \"$@\" --stage --dry-run -H -o uuid\n"
			if err := os.WriteFile(program, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(program) })

			n.does(m.url, 0, []string{"at each boot, and now: " + base.name + " " + sampleApp}, "--prewarm", base.name, sampleApp)
			opt := "/opt/custom"
			n.want("files", n.tree(), "custom custom/imgmirror custom/imgmirror/done custom/imgmirror/imgmirror custom/imgmirror/prewarm custom/smf custom/smf/imgmirror-prewarm.xml")
			n.want("calls", n.calls(), "svccfg import "+opt+"/smf/imgmirror-prewarm.xml; imgadm sources -a "+m.url)
			n.does(m.url, 0, []string{"is imgmirror-1.2.3-illumos-amd64 already"}, "--prewarm", base.name, sampleApp)
			n.want("calls of a second run", n.calls(), "")
			n.boot(base.uuid, sampleApp)

			n.does(m.url, 0, nil, "--prewarm", base.name+"@"+version.Version)
			n.want("calls, other names", n.calls(), "svcadm clear svc:/application/imgmirror-prewarm:default")
			n.boot(base.uuid)

			n.does(m.url, 0, nil, "--undo")
			n.want("calls, --undo", n.calls(), "svcadm disable -s svc:/application/imgmirror-prewarm:default; "+
				"svccfg delete -f svc:/application/imgmirror-prewarm:default; imgadm sources -d "+m.url)
			n.want("files, --undo", n.tree(), "")
			n.want("sources, --undo", n.sources(), "https://images.smartos.org")
			os.Remove(program)
		})
	}
}

// boot runs the method of the service, as SMF reads it from the manifest, and compares what was
// installed.
func (n *scriptNode) boot(uuids ...string) {
	n.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "opt/custom/smf/imgmirror-prewarm.xml"))
	if err != nil {
		n.Fatal(err)
	}
	for _, fault := range smfFaults(string(text)) {
		n.Errorf("the manifest: %s", fault)
	}
	var bundle struct {
		Service struct {
			Methods []struct {
				Name string `xml:"name,attr"`
				Exec string `xml:"exec,attr"`
			} `xml:"exec_method"`
		} `xml:"service"`
	}
	if err := xml.Unmarshal(text, &bundle); err != nil || len(bundle.Service.Methods) != 2 || bundle.Service.Methods[0].Name != "start" {
		n.Fatalf("%v: %s", err, text)
	}
	method := bundle.Service.Methods[0].Exec
	if out, err := exec.Command(need(n, "shellcheck"), method).CombinedOutput(); err != nil {
		n.Errorf("the method: %v\n%s", err, out)
	}
	cmd := exec.Command(need(n, n.shell[0]), slices.Concat(n.shell[1:], []string{method})...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NODE=" + n.dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		n.Fatalf("%s: %v\n%s", method, err, out)
	}
	installs := filepath.Join(n.dir, "installs")
	text, err = os.ReadFile(installs)
	if err != nil {
		n.Fatal(err)
	}
	os.Remove(installs)
	var got []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] == "install" {
			got = append(got, fields[len(fields)-1])
		}
	}
	n.want("installed at boot", strings.Join(got, " "), strings.Join(uuids, " "))
}

// TestNodeScriptWrongSum: a program that is not the one of the sums is not kept, and starts nothing.
func TestNodeScriptWrongSum(t *testing.T) {
	t.Parallel()
	dist := t.TempDir()
	for name, text := range map[string]string{
		"imgmirror-illumos-amd64": "cut",
		"SHA256SUMS":              strings.Repeat("0", 64) + " *imgmirror-illumos-amd64\n",
	} {
		if err := os.WriteFile(filepath.Join(dist, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := startMirror(t, settings{"dist_dir": dist}, samples(t))
	m.awaitList(len(sampleUUIDs))
	n := newScriptNode(t, nodeShells[0])
	n.does(m.url, 1, []string{"has not the sum of SHA256SUMS"}, "--prewarm", "base")
	n.want("files", n.tree(), "custom custom/imgmirror custom/imgmirror/done custom/smf")
	n.does(m.url, 0, nil, "--undo")
	n.want("files, --undo", n.tree(), "")
}

// TestNodeScriptRefuses: elsewhere than in a global zone of SmartOS, without root, and with wrong
// options nothing happens.
func TestNodeScriptRefuses(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	m.awaitList(len(sampleUUIDs))
	for _, shell := range nodeShells {
		refuses := func(tool, answer string, code int, text string, args ...string) {
			t.Helper()
			n := newScriptNode(t, shell)
			if tool != "" {
				n.system[tool] = answer
			}
			n.does(m.url, code, []string{text}, args...)
			n.want("calls", n.calls(), "")
			n.want("files", n.tree(), "")
		}
		refuses("uname", "Linux", 1, "node.sh: this is Linux, and the script is for SmartOS; nothing is changed")
		refuses("uname", "Linux", 1, "nothing is changed", "--undo")
		refuses("zonename", "web01", 1, "this is a zone: run the script in the global zone; nothing is changed")
		refuses("id", "100", 1, "root has to run the script; nothing is changed")
		refuses("", "", 2, "usage:", "--prewarm")
		refuses("", "", 2, "--all is no option", "--all")
		refuses("", "", 2, "is no option, and no name", "--prewarm", "a$(id)")
		refuses("", "", 2, "is no option, and no name", "--prewarm", "a;id")
		refuses("", "", 2, "is no option", "base")
		refuses("", "", 0, "usage:", "--help")
	}
	// A script that has come in part does nothing.
	n := newScriptNode(t, nodeShells[0])
	script, err := exec.Command(need(t, "curl"), "-fsS", m.url+"/node.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []int{1, 2, 3, 50} {
		out, _ := n.pipe(string(script[:len(script)*part/51]))
		n.want(fmt.Sprintf("calls of %d/51 of the script", part), n.calls(), "")
		if strings.Contains(out, "has come") {
			t.Errorf("%d/51: %s", part, out)
		}
	}
}

// TestNodeScriptSaysWhatIsWrong: DNS, port, certificate with both clocks, and things that are no
// mirror are told apart; nothing is changed.
func TestNodeScriptSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	m.awaitList(len(sampleUUIDs))
	private := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
	}))
	t.Cleanup(private.Close)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<html>welcome</html>")
	}))
	t.Cleanup(other.Close)
	absent := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(absent.Close)
	script, err := exec.Command(need(t, "curl"), "-fsS", m.url+"/node.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		mirror string
		texts  []string
	}{
		{"http://no-such-name.invalid:8080", []string{"DNS: this node does not know the name in no-such-name.invalid:8080"}},
		{"http://" + deadAddress(t), []string{"port: 127.0.0.1:"}},
		{private.URL, []string{"certificate: this node cannot verify", "the mirror has Sun, 06 Nov 1994 08:49:37 GMT", "it turns the check on", "IMGADM_INSECURE=1"}},
		{"https://" + strings.TrimPrefix(m.url, "http://"), []string{"does not speak https at this port: try the other"}},
		{other.URL, []string{"is no image server"}},
		{absent.URL, []string{"the mirror answers " + absent.URL + "/ping with an error"}},
	} {
		n := newScriptNode(t, nodeShells[0])
		out, code := n.pipe(strings.Replace(string(script), "\nmirror='"+m.url+"'\n", "\nmirror='"+tc.mirror+"'\n", 1))
		if code != 1 {
			t.Errorf("%s: exit code %d", tc.mirror, code)
		}
		for _, text := range tc.texts {
			if !strings.Contains(out, text) {
				t.Errorf("%s: no %q in\n%s", tc.mirror, text, out)
			}
		}
		n.want("calls", n.calls(), "")
		n.want("files", n.tree(), "")
	}
}

// TestNodeScriptIsClean: shellcheck finds nothing in the script, in the repository and as it is sent.
func TestNodeScriptIsClean(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	sent, err := exec.Command(need(t, "curl"), "-fsS", m.url+"/node.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"proxy/node.sh": readRoot(t, "proxy/node.sh"), "as sent": string(sent)} {
		cmd := exec.Command(need(t, "shellcheck"), "-s", "sh", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	monitoringDir = "../deploy/prometheus"
	dashboardFile = "deploy/grafana/dashboards/imgmirror.json"
)

// promtool runs Prometheus' own checker, and fails the test when the checker finds a fault.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(need(t, "promtool"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// alertRule is one rule of alerts.yml.
type alertRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alertRules(t *testing.T) (all []alertRule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []alertRule
		}
	}
	d := yaml.NewDecoder(strings.NewReader(readRoot(t, "deploy/prometheus/alerts.yml")))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestAlerts: Prometheus takes the configuration and the rules; each alert is shown to fire and not to fire, and is
// explained to operators.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "config", filepath.Join(monitoringDir, "prometheus.yml"))
	promtool(t, "check", "rules", filepath.Join(monitoringDir, "alerts.yml"))
	promtool(t, "test", "rules", filepath.Join(monitoringDir, "alerts_test.yml"))

	var tests struct {
		Tests []struct {
			Rules []struct {
				Alert  string `yaml:"alertname"`
				Expect []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readRoot(t, "deploy/prometheus/alerts_test.yml")), &tests); err != nil {
		t.Fatal(err)
	}
	fires, rests := make(map[string]bool), make(map[string]bool)
	for _, test := range tests.Tests {
		for _, r := range test.Rules {
			fires[r.Alert] = fires[r.Alert] || len(r.Expect) > 0
			rests[r.Alert] = rests[r.Alert] || len(r.Expect) == 0
		}
	}
	docs := readRoot(t, "docs/monitoring.md")
	for _, r := range alertRules(t) {
		if !fires[r.Alert] || !rests[r.Alert] {
			t.Errorf("%s: shown to fire: %t, not to fire: %t", r.Alert, fires[r.Alert], rests[r.Alert])
		}
		if !strings.Contains(docs, "| `"+r.Alert+"` |") {
			t.Errorf("%s: docs/monitoring.md has no line for it", r.Alert)
		}
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: no severity, summary or description", r.Alert)
		}
	}
}

// dashboard is what the tests look at of Grafana's dashboard.
type dashboard struct {
	UID, Title string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Grid                     struct{ X, Y, W, H int } `json:"gridPos"`
	Datasource               struct{ UID string }
	FieldConfig              struct {
		Defaults struct{ Unit string }
	}
	Targets []struct{ RefID, Expr, LegendFormat string }
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(readRoot(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard: the dashboard is well laid out, asks the chosen data source alone, and Prometheus understands what
// the dashboard asks.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text := readRoot(t, dashboardFile)
	if i := strings.Index(text, "://"); i >= 0 {
		t.Errorf("the dashboard names an address: …%.60s", text[max(0, i-10):])
	}
	d := readDashboard(t)
	rules := []map[string]string{}
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: the ID %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Grid.X < 0 || p.Grid.X+p.Grid.W > 24 || p.Grid.W == 0 || p.Grid.H == 0 {
			t.Errorf("%s: %+v is no place on the grid", p.Title, p.Grid)
		}
		for x := p.Grid.X; x < p.Grid.X+p.Grid.W; x++ {
			for y := p.Grid.Y; y < p.Grid.Y+p.Grid.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Title == "" || strings.ToUpper(p.Title[:1]) != p.Title[:1] {
			t.Errorf("panel %d: the title %q", p.ID, p.Title)
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 || p.Type != "state-timeline" && p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("%s: a description, the data source, a unit or a question is missing", p.Title)
		}
		for _, q := range p.Targets {
			rules = append(rules, map[string]string{"record": "panel:of:dashboard", "expr": fixed(q.Expr)})
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	data, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", "--lint=none", file)
}

// fixed is a question of the dashboard with values in the place of Grafana's variables.
func fixed(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$instance", ".+", "$job", ".+").Replace(expr)
}

// TestMonitoredMetrics: each metric, label and value that the dashboard or a rule names is there on a mirror that runs.
func TestMonitoredMetrics(t *testing.T) {
	t.Parallel()
	src := newSource(t, newImage("seen", 1000))
	m := startMirror(t, nil, from(src.URL(), settings{"name": "far"}))
	m.awaitList(1)
	there := scrape(t, m)
	check := func(where, expr string, labels ...string) {
		t.Helper()
		for _, fault := range there.faults(fixed(expr), labels) {
			t.Errorf("%s: %s\n\t%s", where, fault, expr)
		}
	}
	label := regexp.MustCompile(`{{\s*(?:\$labels\.)?([a-z_]+)\s*}}`)
	labelsIn := func(text string) (names []string) {
		for _, found := range label.FindAllStringSubmatch(text, -1) {
			names = append(names, found[1])
		}
		return names
	}
	n := 0
	for _, r := range alertRules(t) {
		check(r.Alert, r.Expr, append(labelsIn(r.Annotations["summary"]), labelsIn(r.Annotations["description"])...)...)
		n++
	}
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			check(p.Title, q.Expr, labelsIn(q.LegendFormat)...)
			n++
		}
	}
	values := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if found := values.FindStringSubmatch(v.Definition); found != nil {
			check("variable "+v.Name, found[1], found[2])
		} else if v.Type == "query" {
			t.Errorf("variable %s: %q", v.Name, v.Definition)
		}
	}
	if n < 50 {
		t.Errorf("only %d questions were looked at", n)
	}
}

// TestMonitoredMetricsChange: a metric, a label or a value under another name is found.
func TestMonitoredMetricsChange(t *testing.T) {
	t.Parallel()
	there := metrics{
		"imgmirror_a_total":          {{"source": "x", "reason": "full"}, {"source": "x", "reason": "ahead"}},
		"imgmirror_b_bytes":          {{}},
		"imgmirror_c_seconds_bucket": {{"route": "file", "le": "1"}},
	}
	f := func(expr, want string, labels ...string) {
		t.Helper()
		if got := strings.Join(there.faults(expr, labels), "; "); got != want {
			t.Errorf("%s %q:\n got %s\nwant %s", expr, labels, got, want)
		}
	}
	f(`sum by (source) (rate(imgmirror_a_total{reason!="ahead", instance=~".+"}[5m])) > 1e9 and on (instance) imgmirror_b_bytes`, "", "source", "instance")
	f(`histogram_quantile(0.5, sum by (le, route) (rate(imgmirror_c_seconds_bucket[1h:5m]))) or vector(0) unless time() - imgmirror_b_bytes offset 1d`, "", "route")
	f(`imgmirror_a_total{reason=~"fu.*|none"} / on (job) group_left () up == bool 1`, "")
	f(`rate(imgmirror_a_totals[5m])`, "no metric imgmirror_a_totals")
	f(`imgmirror_d or imgmirror_b_bytes`, "no metric imgmirror_d")
	f(`imgmirror_a_total{sauce="x"}`, `imgmirror_a_total has no label sauce`)
	f(`imgmirror_b_bytes{source="x"}`, `imgmirror_b_bytes has no label source`)
	f(`imgmirror_a_total{reason="fool"}`, `no series of imgmirror_a_total has reason="fool"`)
	f(`imgmirror_a_total{reason=~"f"}`, `no series of imgmirror_a_total has reason=~"f"`)
	f(`sum by (route) (imgmirror_a_total)`, "no metric has the label route")
	f(`imgmirror_a_total`, "no metric has the label route", "route")
}

// TestMonitoringFiles: the files of Prometheus, Grafana and docker compose fit together.
func TestMonitoringFiles(t *testing.T) {
	t.Parallel()
	compose := readCompose(t)
	host := func(address string) (service, port string) {
		service, port, err := net.SplitHostPort(address)
		if _, ok := compose.Services[service]; err != nil || !ok {
			t.Errorf("%s: no such service", address)
		}
		return service, port
	}
	var prometheus struct {
		Scrape []struct {
			Job     string                       `yaml:"job_name"`
			Targets []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(readRoot(t, "deploy/prometheus/prometheus.yml")), &prometheus); err != nil {
		t.Fatal(err)
	}
	if len(prometheus.Scrape) != 1 || prometheus.Scrape[0].Job != "imgmirror" || len(prometheus.Scrape[0].Targets) != 1 {
		t.Fatalf("%+v", prometheus)
	}
	service, port := host(prometheus.Scrape[0].Targets[0].Targets[0])
	listen := compose.Services["imgmirror"].Environment["IMGMIRROR_ADMIN_LISTEN"]
	if service != "imgmirror" || listen != ":"+port {
		t.Errorf("Prometheus asks port %s of %s, whose admin listener is %q", port, service, listen)
	}

	var sources struct {
		Datasources []struct{ Type, URL string }
	}
	if err := yaml.Unmarshal([]byte(readRoot(t, "deploy/grafana/provisioning/datasources/prometheus.yml")), &sources); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(sources.Datasources[0].URL)
	if err != nil || sources.Datasources[0].Type != "prometheus" {
		t.Fatalf("%+v %v", sources, err)
	}
	if service, _ := host(u.Host); service != "prometheus" {
		t.Errorf("Grafana asks %s", service)
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	if err := yaml.Unmarshal([]byte(readRoot(t, "deploy/grafana/provisioning/dashboards/imgmirror.yml")), &providers); err != nil {
		t.Fatal(err)
	}
	folder := providers.Providers[0].Options.Path
	grafana := compose.Services["grafana"]
	if !slices.Contains(grafana.Volumes, "./"+filepath.Dir(dashboardFile)+":"+folder+":ro") {
		t.Errorf("no dashboards are at %s: %q", folder, grafana.Volumes)
	}
	if home := grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]; home != folder+"/"+filepath.Base(dashboardFile) {
		t.Errorf("the first page is %s", home)
	}
}

// metrics are the series of each metric, by their labels.
type metrics map[string][]map[string]string

// scrape asks a mirror for its metrics, as Prometheus does.
func scrape(t *testing.T, m *mirror) metrics {
	t.Helper()
	line := regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	pair := regexp.MustCompile(`([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"`)
	all := make(metrics)
	for text := range strings.Lines(string(get(t, m.admin+"/metrics").body)) {
		found := line.FindStringSubmatch(strings.TrimSpace(text))
		if found == nil {
			continue
		}
		labels := make(map[string]string)
		for _, p := range pair.FindAllStringSubmatch(found[2], -1) {
			labels[p[1]] = p[2]
		}
		all[found[1]] = append(all[found[1]], labels)
	}
	if len(all) < 50 {
		t.Fatalf("%d metrics: %v", len(all), slices.Sorted(maps.Keys(all)))
	}
	return all
}

// faults tells what an expression of Prometheus names and m has not: metrics, labels, and values in selectors. labels
// are those that the result must have.
func (m metrics) faults(expr string, labels []string) (faults []string) {
	named := readExpr(expr)
	known := map[string]bool{"instance": true, "job": true} // which Prometheus itself adds
	for _, s := range named.selectors {
		if s.metric == "up" { // of Prometheus itself
			continue
		}
		series, ok := m[s.metric]
		if !ok {
			return append(faults, "no metric "+s.metric)
		}
		for name := range series[0] {
			known[name] = true
		}
		for _, match := range s.matchers {
			if match.label == "instance" || match.label == "job" {
				continue
			}
			if _, ok := series[0][match.label]; !ok {
				faults = append(faults, fmt.Sprintf("%s has no label %s", s.metric, match.label))
			} else if !slices.ContainsFunc(series, func(l map[string]string) bool { return match.takes(l[match.label]) }) {
				faults = append(faults, fmt.Sprintf("no series of %s has %s%s%q", s.metric, match.label, match.op, match.value))
			}
		}
	}
	for _, name := range append(labels, named.labels...) {
		if !known[name] {
			faults = append(faults, "no metric has the label "+name)
		}
	}
	return faults
}

//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// report is all that a run has found out.
type report struct {
	machine, plan string
	groups        []groupResult
}

// The generated part of a document stands between these lines.
const (
	reportBegins = "<!-- begin of the part that `make bench` writes -->\n"
	reportEnds   = "<!-- end of the part that `make bench` writes -->\n"
)

// publish prints the report, and writes the files that the options name.
func (r report) publish(o options, stdout io.Writer) error {
	text := r.markdown()
	fmt.Fprintf(stdout, "%s\n%s\n", text, r.verdict())
	if o.json != "" {
		all, err := json.MarshalIndent(r.figures(), "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(all, '\n'), 0o644); err != nil { //nolint:gosec // a report
			return err
		}
	}
	if o.report == "" {
		return nil
	}
	old, err := os.ReadFile(o.report)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), reportBegins)
	_, after, ends := strings.Cut(rest, reportEnds)
	if !ok || !ends {
		return fmt.Errorf("%s has no part between %q and %q", o.report, reportBegins, reportEnds)
	}
	return os.WriteFile(o.report, []byte(before+reportBegins+"\n"+text+"\n"+reportEnds+after), 0o644) //nolint:gosec // a document
}

func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Machine: %s\n\nRun: %s.\n", r.machine, r.plan)
	if goals := r.goals(); goals != "" {
		fmt.Fprintf(&b, "\n### Ratios and goals\n\n%s", goals)
	}
	for _, g := range r.groups {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n%s", g.group.title, g.group.text, g.table())
		if g.group.more != nil {
			b.WriteString(g.group.more(g.results))
		}
	}
	return b.String()
}

// table has a row for each contender of each scenario. A cell is the median, the least and the most, and the ratio.
func (g groupResult) table() string {
	var measures []measure
	for _, r := range g.results {
		for _, m := range r.scenario.measures {
			if !slices.Contains(measures, m) {
				measures = append(measures, m)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| scenario | server |")
	for _, m := range measures {
		fmt.Fprintf(&b, " %s |", m.name)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(measures)) + "\n")
	for _, r := range g.results {
		for _, c := range r.scenario.contenders {
			fmt.Fprintf(&b, "| %s | %s |", r.scenario.name, c.name)
			for _, m := range measures {
				fmt.Fprintf(&b, " %s |", r.cell(c.name, m))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (r result) cell(contender string, m measure) string {
	all := r.values(contender, m)
	if len(all) == 0 || !slices.Contains(r.scenario.measures, m) {
		return "–"
	}
	text := fmt.Sprintf("%.*f (%.*f–%.*f)", m.digits, median(all), m.digits, slices.Min(all), m.digits, slices.Max(all))
	if ratio := ratios(all, r.values(r.scenario.base, m)); contender != r.scenario.base && m != generator && len(ratio) > 0 {
		text += fmt.Sprintf(" × %.2f", median(ratio))
	}
	return text
}

// goals is a table of the mirror's ratios with their goals; "" if no scenario has one.
func (r report) goals() string {
	var b strings.Builder
	for _, g := range r.groups {
		for _, one := range g.results {
			for _, goal := range one.scenario.goals {
				if all := one.judged(goal); len(all) > 0 {
					fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", one.scenario.name, goal.what(), goal.against(all), goal.wanted())
				}
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "| scenario | of the mirror | is (least–most of the rounds) | goal |\n|---|---|---|---|\n" + b.String()
}

// verdict tells how many goals are met.
func (r report) verdict() string {
	var met, missed int
	for _, g := range r.groups {
		for _, one := range g.results {
			for _, goal := range one.scenario.goals {
				switch all := one.judged(goal); {
				case len(all) == 0:
				case goal.missed(all):
					missed++
				default:
					met++
				}
			}
		}
	}
	if met+missed == 0 {
		return "No goal is judged."
	}
	return fmt.Sprintf("%s met, %d missed.", count(met, "goal"), missed)
}

// judged are the values that the goal is about, one a round.
func (r result) judged(g goal) []float64 {
	mine, other := r.values(ours, g.measure), r.values(g.to, g.measure)
	if g.to == "" {
		return mine
	}
	if !g.minus {
		return ratios(mine, other)
	}
	var all []float64
	for i := range min(len(mine), len(other)) {
		all = append(all, mine[i]-other[i])
	}
	return all
}

func (g goal) what() string {
	if g.to == "" {
		return g.measure.name
	}
	if g.minus {
		return g.measure.name + ", minus that of " + g.to
	}
	return g.measure.name + ", to " + g.to
}

func (g goal) against(all []float64) string {
	text := fmt.Sprintf("%.2f (%.2f–%.2f)", median(all), slices.Min(all), slices.Max(all))
	if g.missed(all) {
		text += ", missed"
	}
	return text
}

// missed tells whether the median of the values misses the goal.
func (g goal) missed(all []float64) bool {
	if g.atLeast {
		return median(all) < g.limit
	}
	return median(all) > g.limit
}

func (g goal) wanted() string {
	if g.atLeast {
		return fmt.Sprintf("≥ %g", g.limit)
	}
	return fmt.Sprintf("≤ %g", g.limit)
}

// figures is the report as data: scenario, contender, measure, a value each round.
func (r report) figures() map[string]any {
	scenarios := map[string]map[string]map[string][]float64{}
	for _, g := range r.groups {
		for _, one := range g.results {
			of := map[string]map[string][]float64{}
			for _, c := range one.scenario.contenders {
				of[c.name] = map[string][]float64{}
				for _, m := range one.scenario.measures {
					if all := one.values(c.name, m); len(all) > 0 {
						of[c.name][m.name] = all
					}
				}
			}
			scenarios[one.scenario.name] = of
		}
	}
	return map[string]any{"machine": r.machine, "run": r.plan, "scenarios": scenarios}
}

package table

import (
	"fmt"
	"strings"
)

// maxTyped bounds the length of what is compared with words, in letters.
const maxTyped = 64

// Nearest gives the word that typed is most likely a slip of: one letter too many, missing, wrong, or
// swapped with its neighbour, for each three letters of typed. Case does not count. Without a near word
// the only word that begins with typed counts. "" stands for no such word.
func Nearest(typed string, words []string) string {
	t := []rune(strings.ToLower(typed))
	if len(t) < 2 || len(t) > maxTyped {
		return ""
	}
	nearest, least := "", max(1, len(t)/3)+1
	begins, beginning := 0, ""
	for _, w := range words {
		lower := strings.ToLower(w)
		if d := slips(t, []rune(lower), least); d < least {
			nearest, least = w, d
		}
		if strings.HasPrefix(lower, string(t)) {
			begins++
			beginning = w
		}
	}
	if nearest == "" && begins == 1 {
		return beginning
	}
	return nearest
}

// slips counts the slips between two words, most at most: the distance of Damerau and Levenshtein in
// which no letter is changed twice.
func slips(a, b []rune, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	row := func() []int { return make([]int, len(b)+1) }
	before, last, now := row(), row(), row()
	for j := range last {
		last[j] = j
	}
	for i := range a {
		now[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			now[j+1] = min(last[j+1]+1, now[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last, now = last, now, before
	}
	return min(last[len(b)], most)
}

// Unknown says that there is no such thing among words, in a few words for an error:
//
//	no field "vresion": did you mean "version"?
//
// Without a near word it ends after the name.
func Unknown(thing, typed string, words []string) string {
	if near := Nearest(typed, words); near != "" {
		return fmt.Sprintf("no %s %q: did you mean %q?", thing, typed, near)
	}
	return fmt.Sprintf("no %s %q", thing, typed)
}

//go:build linux

// Command film makes the film of `imgmirror demo` that stands in the README: it runs a command in a
// terminal of its own and writes what appeared there as one animated SVG, which asks for nothing
// else. The text is that of the run; the tempo is one to read by (svg.go).
//
//	usage: film -o FILE COMMAND [ARGUMENT...]
//
// The command must end with 0, and have lines of 80 columns at most.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	output := flag.String("o", "film.svg", "the `FILE` to write")
	flag.Parse()
	if err := film(*output, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "film:", err)
		os.Exit(1)
	}
}

// film runs args and writes the film.
func film(output string, args []string) error {
	if len(args) == 0 {
		return errors.New("want a command to film")
	}
	text, err := record(args)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, text)
	}
	shown := append([]string{filepath.Base(args[0])}, args[1:]...)
	lines, err := parse("\x1b[1m$ " + strings.Join(shown, " ") + "\x1b[0m\n" + text)
	if err != nil {
		return err
	}
	return os.WriteFile(output, []byte(draw(lines)), 0o644) //nolint:gosec // a picture for everyone
}

// record runs args in a terminal and gives all that appears there.
func record(args []string) (string, error) {
	terminal, inside, err := openTerminal(columns, rows)
	if err != nil {
		return "", err
	}
	defer terminal.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inside, inside, inside
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	inside.Close()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(terminal)
	if errors.Is(err, syscall.EIO) { // Linux tells so that the last program has closed the terminal
		err = nil
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n"), errors.Join(err, cmd.Wait())
}

//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

// describeMachine tells what the figures were measured on.
func describeMachine(ctx context.Context) string {
	field := func(file, name string) string {
		text, _ := os.ReadFile(file)
		_, after, _ := strings.Cut(string(text), name)
		line, _, _ := strings.Cut(after, "\n")
		return strings.TrimSpace(strings.TrimLeft(line, " \t:"))
	}
	var memory int
	_, _ = fmt.Sscan(field("/proc/meminfo", "MemTotal:"), &memory)
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version := func(name string, args ...string) string {
		out, _ := exec.CommandContext(ctx, name, args...).CombinedOutput()
		return name + " " + regexp.MustCompile(`\d+(\.\d+)+`).FindString(string(out))
	}
	return fmt.Sprintf("%d cores of %s, %d GB of memory, Linux %s; %s, %s, %s, %s.", runtime.NumCPU(), field("/proc/cpuinfo", "model name"), memory/1_000_000,
		strings.TrimSpace(string(kernel)), runtime.Version(), version("nginx", "-v"), version("varnishd", "-V"), version("gcc", "--version"))
}

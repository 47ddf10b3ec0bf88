package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/valyala/fasthttp/fasthttputil"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// session is a verb's connection to a mirror's admin API: one far away
// (--server), the one that runs on the data folder, or, when none does, one
// that lives in this process for as long as the verb. close ends it.
type session struct {
	*admin.Client
	close func() error
	local bool // the mirror is in this process: none runs
}

// addServerFlags adds the options that say which mirror a verb asks.
func addServerFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("server", "", "`URL` of a mirror's admin listener (default: the mirror on the data folder)")
	flags.String("token-file", "", "`FILE` with the admin token of --server")
}

// need says what a verb wants of a data folder on which no mirror runs.
type need int

const (
	needFiles    need = iota // what is on disk: a folder that does not exist is an error
	needLists                // the sources' lists, which are asked for if they are old; without a folder they are kept nowhere
	needAnswers              // likewise, and each source is asked just now
	needCheck                // likewise, and the verb itself has the sources asked
	needStore                // files and lists: a folder that does not exist is an error
	needNewStore             // likewise, and the folder is made: the first image of a mirror may come by the verb
)

// withSession connects cmd to its mirror, calls do and ends the connection.
func withSession(cmd *cobra.Command, n need, do func(context.Context, *session) error) error {
	s, err := connect(cmd, n)
	if err != nil {
		return err
	}
	return errors.Join(do(cmd.Context(), s), s.close())
}

// withTable prints the rows that cmd's mirror gives.
func withTable[T any](cmd *cobra.Command, out table.Layout[T], n need, ask func(context.Context, *session) ([]T, error)) error {
	return withSession(cmd, n, func(ctx context.Context, s *session) error {
		rows, err := ask(ctx, s)
		if err != nil {
			return err
		}
		return out.Print(cmd.OutOrStdout(), rows)
	})
}

// withMatches is withTable for rows that filters choose. Without a row the verb prints JSON only, and
// fails with none, which is nil when there are no filters.
func withMatches[T any](cmd *cobra.Command, out table.Layout[T], n need, none error, ask func(context.Context, *session) ([]T, error)) error {
	return withSession(cmd, n, func(ctx context.Context, s *session) error {
		rows, err := ask(ctx, s)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			none = nil
		}
		if none != nil && !out.JSON {
			return none
		}
		return errors.Join(out.Print(cmd.OutOrStdout(), rows), none)
	})
}

// withJob has cmd's mirror start a job, and stays until the job is over.
func withJob(cmd *cobra.Command, n need, f progress.Following, start func(context.Context, *session) (admin.Job, error)) error {
	return withSession(cmd, n, func(ctx context.Context, s *session) error {
		job, err := start(ctx, s)
		if err != nil {
			return err
		}
		f.Client = s.Client
		return f.Follow(ctx, cmd, job)
	})
}

// tableVerb completes a verb that only asks its mirror for the images that its arguments name, and
// prints them. among says which images there are for filters to match; see noMatch.
func tableVerb[T any](cmd *cobra.Command, t table.Table[T], n need, among string, ask func(ctx context.Context, s *session, args []string) ([]T, error)) *cobra.Command {
	addServerFlags(cmd)
	t.Run(cmd, func(cmd *cobra.Command, args []string, out table.Layout[T]) error {
		return withMatches(cmd, out, n, noMatch("image", args, among), func(ctx context.Context, s *session) ([]T, error) { return ask(ctx, s, args) })
	})
	return cmd
}

// connect finds the mirror that cmd is meant for.
func connect(cmd *cobra.Command, n need) (*session, error) {
	s, cfg, err := connectRunning(cmd)
	if s != nil || err != nil {
		return s, err
	}
	return openLocal(cmd.Context(), cfg, n, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(),
		&slog.HandlerOptions{Level: slog.LevelError})))
}

// connectRunning is connect for a mirror that runs. When none runs, there is no session, but
// the configuration.
func connectRunning(cmd *cobra.Command) (*session, *config.Config, error) {
	server, err := cmd.Flags().GetString("server")
	if err != nil {
		return nil, nil, err
	}
	tokenFile, err := cmd.Flags().GetString("token-file")
	if err != nil {
		return nil, nil, err
	}
	switch {
	case server != "":
		s, err := connectServer(server, tokenFile)
		return s, nil, err
	case tokenFile != "":
		return nil, nil, failure.Usage("--token-file is for --server")
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return nil, nil, err
	}
	s, err := connectSocket(cmd.Context(), cfg)
	return s, cfg, err
}

// connectServer is for a mirror on another machine.
func connectServer(server, tokenFile string) (*session, error) {
	token := ""
	if tokenFile != "" {
		var err error
		if token, err = config.ReadSecret(tokenFile); err != nil {
			return nil, fmt.Errorf("token-file: %w", err)
		}
	}
	client, err := admin.NewClient(admin.ClientOptions{URL: config.WithScheme(server), Token: token})
	if err != nil {
		return nil, &failure.Error{Code: failure.CodeUsage, Err: err}
	}
	return &session{Client: client, close: client.Close}, nil
}

// connectTimeout is how long a mirror on this machine may take to accept.
const connectTimeout = 5 * time.Second

// connectSocket is for the mirror that runs on the data folder: nil when none
// does. A socket without a listener is left from a killed mirror.
func connectSocket(ctx context.Context, cfg *config.Config) (*session, error) {
	path := admin.SocketPath(filepath.Join(cfg.DataDir, admin.SocketName))
	dial := func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{Timeout: connectTimeout}
		return d.DialContext(ctx, "unix", path)
	}
	conn, err := dial(ctx)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, failure.New("NotAllowed", "a mirror runs on %s, and its socket is another user's: %w", cfg.DataDir, err)
	case err != nil:
		return nil, ctx.Err() // openLocal finds out if a mirror runs all the same
	}
	conn.Close()
	client, err := admin.NewClient(admin.ClientOptions{Dial: dial})
	if err != nil {
		return nil, err
	}
	return &session{Client: client, close: client.Close}, nil
}

// refreshLimit is how long a verb that runs its own mirror waits for the
// sources' lists; it then goes by those on disk.
const refreshLimit = 30 * time.Second

// openLocal opens the data folder in this process and serves the API to itself.
// Nothing that a mirror does of its own accord runs: no refresh but that of old
// lists which n asks for, no scrub, no prefetch, no resuming of old downloads.
func openLocal(ctx context.Context, cfg *config.Config, n need, log *slog.Logger) (*session, error) {
	own := *cfg
	own.Listen, own.Admin.Listen = "", ""
	own.Verify.ScrubEvery = 0
	own.Prefetch = nil
	cleanup := func() error { return handOver(own.DataDir) }
	if _, err := os.Stat(cfg.DataDir); errors.Is(err, fs.ErrNotExist) && n != needNewStore {
		if n == needFiles || n == needStore {
			return nil, failure.New("NoDataFolder", "no mirror has been run on %s: start one (imgmirror serve), "+
				"or name the data folder of another (--data-dir, or data_dir in the configuration)", cfg.DataDir)
		}
		dir, err := os.MkdirTemp("", "imgmirror-")
		if err != nil {
			return nil, err
		}
		own.DataDir = dir
		cleanup = func() error { return os.RemoveAll(dir) }
	}
	m, err := newProcess(ctx, &own, log, nil)
	if err != nil {
		return nil, errors.Join(err, cleanup())
	}
	ln := fasthttputil.NewInmemoryListener()
	client, err := admin.NewClient(admin.ClientOptions{OneRequest: true, Dial: func(context.Context) (net.Conn, error) { return ln.Dial() }})
	if err != nil {
		m.close()
		return nil, errors.Join(err, cleanup())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- m.runLocal(serving, ln) }()
	if n != needFiles && n != needCheck {
		limited, cancel := context.WithTimeout(ctx, refreshLimit)
		refresh := m.RefreshDue
		if n == needAnswers {
			refresh = m.Refresh
		}
		if err := refresh(limited); err != nil {
			log.Warn("the lists of some sources are those of an earlier time", "error", err)
		}
		cancel()
	}
	return &session{
		Client: client,
		local:  true,
		close: func() error {
			err := client.Close()
			stop()
			return errors.Join(err, <-done, cleanup())
		},
	}, nil
}

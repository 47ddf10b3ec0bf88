package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// The images of the chapters that need a file which no client has asked for yet.
const (
	cutSample  = "sample-plain"
	lieSample  = "sample-xz"
	herdSample = "sample-bzip2"
)

// herdSize is how many clients ask at the same time.
const herdSize = 8

// story is what the chapters share.
type story struct {
	*teller
	dir    string
	start  Start
	verb   Verb
	line   *line // from mirror to the source
	mirror *Mirror
	client *client // of mirror
	served int64   // bytes of files that clients have got
}

// pull imports an image while the mirror does not have its files.
func (s *story) pull(ctx context.Context) error {
	s.line.next(nil)
	n, took, err := s.client.importSample(ctx)
	if err != nil {
		return err
	}
	s.served += n
	s.say("The import took %s.", took.Round(time.Millisecond/10))
	files, err := s.line.replies(ctx)
	if err != nil {
		return err
	}
	return s.figure("files that the source has sent", int64(len(files)), 3)
}

// cut breaks the line in mid-file.
func (s *story) cut(ctx context.Context) error {
	m, err := s.client.named(ctx, cutSample)
	if err != nil {
		return err
	}
	resumes, err := s.mirror.metric("imgmirror_fill_resumes_total")
	if err != nil {
		return err
	}
	at := m.Files[0].Size / 2
	s.say("The source hangs up after %s of the %s bytes of %s.", humanize.Comma(at), humanize.Comma(m.Files[0].Size), cutSample)
	s.line.next(&fault{at: at, cut: true})
	n, err := s.client.file(ctx, m)
	if err != nil {
		return err
	}
	s.served += n
	var from, sent int64
	files, err := s.line.replies(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		from, sent = f.from, sent+f.sent
	}
	resumed, err := s.mirror.metric("imgmirror_fill_resumes_total")
	return errors.Join(err,
		s.figure("requests at the source", int64(len(files)), 2),
		s.figure("downloads that the mirror has resumed", resumed-resumes, 1),
		s.figure("byte at which the second request begins", from, at),
		s.figure("bytes that the source has sent: the file, once", sent, m.Files[0].Size))
}

// lie has a mirror of its own, with two sources. The first source sends a wrong byte.
func (s *story) lie(ctx context.Context, source *Mirror) (err error) {
	liar, err := newLine(source.URL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, liar.close()) }()
	honest, err := newLine(source.URL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, honest.close()) }()
	mirror, err := s.start(ctx, Options{Dir: filepath.Join(s.dir, "wary"), Sources: []config.Source{from("liar", liar.url), from("honest", honest.url)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mirror.Stop()) }()
	if said := s.ask(ctx, mirror, "refresh"); said.Code != "" { // both lists are there
		return fmt.Errorf("refresh: %s", said.Text)
	}
	c := newClient(mirror.URL, s.say)
	m, err := c.named(ctx, lieSample)
	if err != nil {
		return err
	}

	began := make(chan struct{})
	s.say("Of two sources the first sends one wrong byte of %s.", lieSample)
	liar.next(&fault{at: m.Files[0].Size / 2, release: began, wrong: true})
	honest.next(nil)
	var wrong int64 // clients that have a whole wrong file
	got, err := c.fetch(ctx, m, func() { close(began) })
	switch {
	case err == nil:
		return errors.New("the client was served a file that its source has sent wrong")
	case ctx.Err() != nil:
		return err
	case got.bytes >= m.Files[0].Size:
		wrong++
	}
	s.say("GET %s  cut before the last byte: the sha1 is wrong", filePath(m))
	s.say("The client asks again.")
	if _, err = c.file(ctx, m); err != nil {
		return err
	}
	if err := mirror.settled(ctx); err != nil {
		return err
	}
	asked, err := honest.replies(ctx)
	if err != nil {
		return err
	}
	failures, err := mirror.metric("imgmirror_verify_failures_total")
	if err != nil {
		return err
	}
	published, bad, err := published(ctx, mirror.Dir)
	return errors.Join(err,
		s.figure("verify failures", failures, 1),
		s.figure("clients with a whole wrong file", wrong, 0),
		s.figure("requests at the honest source", int64(len(asked)), 1),
		s.figure("files published", published, 1),
		s.figure("files published wrong (each hashed again)", bad, 0))
}

// published hashes the files of a data folder. Each file is named by its sha1.
func published(ctx context.Context, dir string) (files, wrong int64, err error) {
	err = filepath.WalkDir(filepath.Join(dir, "files"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		sum, err := verify.ParseSum(d.Name())
		if err == nil {
			_, err = verify.File(ctx, path, verify.Want{SHA1: sum})
		}
		if err != nil && ctx.Err() == nil {
			wrong++
		}
		return ctx.Err()
	})
	return files, wrong, err
}

// herd has clients ask for one file that the mirror does not have. The source sends the second half
// when each client has a byte of the file: all of them are served by one download.
func (s *story) herd(ctx context.Context) error {
	m, err := s.client.named(ctx, herdSample)
	if err != nil {
		return err
	}
	all := make(chan struct{})
	s.line.next(&fault{at: m.Files[0].Size / 2, release: all})
	var (
		mu           sync.Mutex // guards the counts
		began, right int64
	)
	s.say("The source sends half of %s, the rest when all clients have bytes.", herdSample)
	g, asking := errgroup.WithContext(ctx)
	for range herdSize {
		g.Go(func() error {
			got, err := s.client.fetch(asking, m, func() {
				mu.Lock()
				defer mu.Unlock()
				if began++; began == herdSize {
					close(all)
				}
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				right++
				s.served += got.bytes
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var sent int64
	files, err := s.line.replies(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		sent += f.sent
	}
	return errors.Join(
		s.figure("clients with bytes of the one running download", began, herdSize),
		s.figure("clients with the right file", right, herdSize),
		s.figure("requests at the source", int64(len(files)), 1),
		s.figure("bytes that the source has sent: the file, once", sent, m.Files[0].Size))
}

// offline imports again what pull has imported, with the source stopped.
func (s *story) offline(ctx context.Context, source *Mirror) error {
	if err := errors.Join(s.line.close(), source.Stop()); err != nil {
		return err
	}
	if err := s.mirror.settled(ctx); err != nil {
		return err
	}
	s.say("The source is stopped.")
	before, err := s.mirror.metric("imgmirror_upstream_received_bytes_total")
	if err != nil {
		return err
	}
	s.client.hits = 0
	n, took, err := s.client.importSample(ctx)
	if err != nil {
		return err
	}
	s.served += n
	s.say("The import took %s.", took.Round(time.Millisecond/10))
	after, err := s.mirror.metric("imgmirror_upstream_received_bytes_total")
	return errors.Join(err,
		s.figure("files served from the mirror's disk", s.client.hits, 3),
		s.figure("bytes from the source", after-before, 0))
}

// carry takes an image to a mirror without a source, in bundles that are signed with two keys.
func (s *story) carry(ctx context.Context) (err error) {
	at := func(name string) string { return filepath.Join(s.dir, name) }
	do := func(m *Mirror, args ...string) Said {
		shown := make([]string, len(args))
		for i, a := range args {
			shown[i] = strings.TrimPrefix(a, s.dir+string(filepath.Separator))
		}
		s.say("$ imgmirror %s", strings.Join(shown, " "))
		if m == nil {
			return s.verb(ctx, args...)
		}
		return s.ask(ctx, m, args...)
	}
	var key string
	for _, c := range []struct {
		on   *Mirror // nil: no mirror is asked
		args []string
	}{
		{nil, []string{"bundle", "keygen", "-o", at("key")}},
		{s.mirror, []string{"bundle", "export", "-o", at("signed.tar"), "--sign", at("key"), "name=" + sample}},
		{nil, []string{"bundle", "keygen", "-o", at("stranger")}},
		{s.mirror, []string{"bundle", "export", "-o", at("strange.tar"), "--sign", at("stranger"), "name=" + sample}},
	} {
		said := do(c.on, c.args...)
		if said.Code != "" {
			return fmt.Errorf("%s: %s", strings.Join(c.args[:2], " "), said.Text)
		}
		if key == "" {
			key = strings.TrimSpace(said.Text)
		}
	}
	second, err := s.start(ctx, Options{Dir: at("second"), Keys: []string{key}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.Stop()) }()
	s.say("A second mirror, without a source, trusts the first key:")
	c := newClient(second.URL, s.say)
	c.told = true
	images := func() (n int64) {
		list, listErr := c.images(ctx)
		err = errors.Join(err, listErr)
		return int64(len(list))
	}
	refused := do(second, "bundle", "import", at("strange.tar"))
	s.say("  refused: %s", refused.Code)
	if refused.Code != "BundleNotTrusted" {
		return fmt.Errorf("the bundle of a strange key: %q, expected BundleNotTrusted", refused.Code)
	}
	if err := s.figure("images taken in, signed with the strange key", images(), 0); err != nil {
		return err
	}
	if said := do(second, "bundle", "import", at("signed.tar")); said.Code != "" {
		return fmt.Errorf("bundle import: %s", said.Text)
	}
	taken := images()
	if _, _, importErr := c.importSample(ctx); importErr != nil {
		return importErr
	}
	return errors.Join(err,
		s.figure("images taken in, signed with the trusted key", taken, 3),
		s.figure("files served right by the second mirror", c.hits, 3))
}

// ask runs a verb that asks m. The verb reads neither a configuration nor the environment.
func (s *story) ask(ctx context.Context, m *Mirror, args ...string) Said {
	return s.verb(ctx, append(args, "--server", m.Admin, "--token-file", m.Token)...)
}

// from is a source of a mirror.
func from(name, url string) config.Source {
	return config.Source{Name: name, URL: config.URL(url), Kind: "auto", Refresh: time.Hour}
}

// filePath is the path of an image's file, as the story shows the path.
func filePath(m manifest.Manifest) string { return "/images/" + short(m.UUID) + "/file" }

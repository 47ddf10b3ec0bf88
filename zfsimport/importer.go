package zfsimport

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
)

// File is an image's file, compressed as its manifest says. It gives the bytes as
// they become available, and never io.EOF before all of them are known to be right:
// bytes that turn out wrong end it with an error. Reads end with an error when the
// context ends that was given to Open.
type File interface {
	io.Reader
	io.Closer
	Size() int64 // in bytes
}

// Open gives the first file of an image. The caller closes it.
type Open func(ctx context.Context, image manifest.Manifest) (File, error)

// Options say where things are. Zero values have the meaning stated.
type Options struct {
	Open    Open   // where image files come from; needed by Install and Stage
	Pool    string // the zpool meant where a call names none; "" = zones
	ZFSPath string // the folder of zfs and zpool, or the zfs program itself; "" = PATH, then the usual folders

	DBDir    string // imgadm's database; "" = /var/imgadm
	LockDir  string // where imgadm's locks are; "" = /var/run
	StageDir string // where imgadm looks for files before it downloads them; "" = /var/tmp/.imgadm-downloads

	// Source is the URL that an image's record names as its source. nil, or "" for
	// an image: the record names none.
	Source func(image manifest.Manifest) string
	// Find looks an image up whose record is missing; the error matches
	// fs.ErrNotExist when it is not known. nil: no record is repaired by Recover.
	Find func(ctx context.Context, id uuid.UUID) (manifest.Manifest, error)

	Logger     *slog.Logger          // nil = slog.Default()
	Registerer prometheus.Registerer // nil = the metrics are not registered
}

// Importer installs images. Its methods may be called concurrently.
type Importer struct {
	o       Options
	log     *slog.Logger
	metrics *metrics
	turn    turn
	sync    func(*os.File) error // all that is synced, files and folders
}

// New makes an Importer. It asks nothing of zfs yet: see Check.
func New(o Options) (*Importer, error) {
	for _, d := range []struct {
		to    *string
		value string
	}{
		{&o.Pool, "zones"},
		{&o.DBDir, "/var/imgadm"},
		{&o.LockDir, "/var/run"},
		{&o.StageDir, "/var/tmp/.imgadm-downloads"},
	} {
		if *d.to == "" {
			*d.to = d.value
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	im := &Importer{o: o, log: o.Logger.With("component", "zfsimport"), sync: (*os.File).Sync}
	var err error
	if im.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, err
	}
	_, err = im.pool(o.Pool)
	return im, err
}

// Phase is what an install is doing.
type Phase string

// The phases, in their order.
const (
	Waiting    Phase = "waiting"    // for imgadm's lock, or for another receive to end
	Receiving  Phase = "receiving"  // the file is read, decompressed and received
	Installing Phase = "installing" // all bytes are in the pool and known to be right
)

// Progress is how far an install has come.
type Progress struct {
	Phase   Phase
	Read    int64 // bytes of the file that were read
	Size    int64 // bytes of the file; 0 when not known yet
	Written int64 // bytes of the ZFS stream given to zfs receive
}

// Outcome is what came of an install.
type Outcome string

// The outcomes. With an error other than ErrPlatform there is none, "".
const (
	Done     Outcome = "installed" // or staged
	Present  Outcome = "present"   // it was there
	Repaired Outcome = "repaired"  // the dataset was there, imgadm's record of it was not
	Skipped  Outcome = "skipped"   // the image can not run on this machine; the error matches ErrPlatform and says why
)

package zfsimport

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/manifest"
)

// Open gives the first file of an image, compressed as the manifest says. The caller closes the
// file. Reads give bytes as they become available, and io.EOF only when all bytes are known to be
// right; wrong bytes end the reads with an error, and so does the end of ctx.
type Open func(ctx context.Context, image manifest.Manifest) (io.ReadCloser, error)

// Options say where things are. Zero values have the stated meaning.
type Options struct {
	Open    Open   // where image files come from; needed by Install and Stage
	Pool    string // the zpool of calls that name none; "" = zones
	ZFSPath string // the folder of zfs and zpool, or the zfs program itself; "" = PATH, then the usual folders

	DBDir    string // imgadm's database; "" = /var/imgadm
	LockDir  string // where imgadm's locks are; "" = /var/run
	StageDir string // where imgadm looks for files before a download; "" = /var/tmp/.imgadm-downloads

	// Source is the URL that the records of images name as their source. "": the records name none.
	Source string
	// Find gives an image whose record is missing; the error matches fs.ErrNotExist for an unknown
	// image. nil: Recover repairs no record.
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
	sync    func(*os.File) error // syncs files and folders
}

// New makes an Importer, and asks nothing of zfs: see Check.
func New(o Options) (*Importer, error) {
	o.Pool = cmp.Or(o.Pool, "zones")
	o.DBDir = cmp.Or(o.DBDir, "/var/imgadm")
	o.LockDir = cmp.Or(o.LockDir, "/var/run")
	o.StageDir = cmp.Or(o.StageDir, "/var/tmp/.imgadm-downloads")
	log := cmp.Or(o.Logger, slog.Default()).With("component", "zfsimport")
	metrics, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	im := &Importer{o: o, log: log, metrics: metrics, sync: (*os.File).Sync}
	_, err = im.pool(o.Pool)
	return im, err
}

// Progress is how far an install has come.
type Progress struct {
	Read    int64 // bytes of the file that were read
	Written int64 // bytes of the ZFS stream given to zfs receive
}

// Outcome is what came of an install.
type Outcome string

// The outcomes. An error other than ErrPlatform has none, "".
const (
	Done     Outcome = "installed" // or staged
	Present  Outcome = "present"   // there before
	Repaired Outcome = "repaired"  // the dataset was there, without imgadm's record
	Skipped  Outcome = "skipped"   // the image can not run on this machine; the error matches ErrPlatform and says why
)

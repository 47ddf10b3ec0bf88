package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"imgmirror/cache/disk"
)

// dataFormat is the format of the data folders that this version writes; the version reads all earlier
// formats too. A change of DATA that an earlier version would misread, or lose, needs the next number.
//
//	1  without DATA/format: all layouts before that file
//	2  DATA/format
const dataFormat = 2

// ErrFormat says that a data folder is of a format that this version does not read. Nothing in the folder
// has been changed.
var ErrFormat = errors.New("data folder of another format")

// formatFile is where the first line tells the format of the data folder, in digits.
func (d folder) formatFile() string { return filepath.Join(string(d), "format") }

// CheckFormat gives the error, ErrFormat among others, with which Open would refuse the data folder dir for its
// format. A folder that is not there yet is fine.
func CheckFormat(dir string) error {
	_, err := folder(dir).checkFormat()
	return err
}

// checkFormat refuses a folder of a format that this version does not read, by ErrFormat, and changes nothing.
// written tells whether the folder says that it is of this version's format.
func (d folder) checkFormat() (written bool, err error) {
	data, err := readRegular(d.formatFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("data folder: its format is not known: %w", disk.Error(err))
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	format, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 31)
	switch {
	case err != nil || format == 0:
		return false, fmt.Errorf("%w: %s begins with %.40q, and not with the number of a format: nothing was changed; put the file back from a backup, "+
			"or remove the file if no version later than this one has had the folder", ErrFormat, d.formatFile(), line)
	case format > dataFormat:
		return false, fmt.Errorf("%w: %s is of format %d, and this imgmirror reads formats up to %d: nothing was changed; start the later version that wrote the folder, "+
			"or name another folder (data_dir, --data-dir)", ErrFormat, string(d), format, dataFormat)
	}
	return format == dataFormat, nil
}

// writeFormat notes the format of this version. A disk that takes nothing keeps no mirror from its start: the next
// start writes the file.
func (d folder) writeFormat() error {
	err := disk.Write(d.formatFile(), []byte(strconv.Itoa(dataFormat)+"\n"), 0o644)
	if err != nil && !disk.TakesNothing(err) {
		return fmt.Errorf("data folder: %w", err)
	}
	return nil
}

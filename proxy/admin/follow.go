package admin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// followTries is how long Follow tries to get a lost stream back: a network may drop it, and a
// proxy in between be restarted. A mirror that ended has taken its jobs along.
const (
	followTries = 10 * time.Second
	followPause = 2 * time.Second // between two tries, at most
)

// Follow calls update, when it is not nil, with the job as it is now and whenever it has changed,
// and returns it once it is over. A stream that breaks is taken up again. It returns the last state
// seen, with an error, when ctx ends or the mirror cannot be reached for followTries; the job then
// goes on, if the mirror does.
func (c *Client) Follow(ctx context.Context, id string, update func(Job)) (Job, error) {
	last := Job{ID: id, State: JobRunning}
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = followPause
	var lost time.Time // when the stream was first tried in vain
	for {
		err := c.stream(ctx, id, func(j Job) {
			last, lost = j, time.Time{}
			pauses.Reset()
			if update != nil {
				update(j)
			}
		})
		if last.Over() {
			return last, nil
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if lost.IsZero() {
			lost = time.Now()
		}
		var told *Error
		if errors.As(err, &told) && told.Code == codeTooManyStreams { // the job itself may be asked for
			var j Job
			if j, err = c.Job(ctx, id); err == nil {
				last, lost = j, time.Now()
				if update != nil {
					update(j)
				}
				if j.Over() {
					return j, nil
				}
			}
		}
		switch {
		case ctx.Err() != nil, errors.As(err, &told):
			return last, fmt.Errorf("following job %s: %w", id, err)
		case time.Since(lost) > followTries:
			return last, fmt.Errorf("following job %s: the mirror has not answered for %s: %w", id, followTries, err)
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-ctx.Done():
		}
	}
}

// maxEvent bounds one line of an event stream that is read: a job of 100,000 images has some 20 MB.
const maxEvent = 256 << 20

// stream reads the events of one job until it is over or the stream ends, which is an error.
func (c *Client) stream(ctx context.Context, id string, update func(Job)) error {
	return c.read(ctx, "/events?job="+url.QueryEscape(id), eventJob, func(data []byte) (over bool, err error) {
		var job Job
		if err := json.Unmarshal(data, &job); err != nil {
			return false, fmt.Errorf("event of job %s: %w", id, err)
		}
		update(job)
		return job.Over(), nil
	})
}

// FollowStatus calls update with the status as it is now and whenever it has changed, at most once a
// second, until ctx ends. A stream that breaks is taken up again. It returns an error when ctx ends,
// or the mirror cannot be reached for followTries.
func (c *Client) FollowStatus(ctx context.Context, update func(Status)) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = followPause
	lost := time.Now()
	for {
		err := c.streamStatus(ctx, func(st Status) {
			lost = time.Now()
			pauses.Reset()
			update(st)
		})
		var told *Error
		if errors.As(err, &told) && told.Code == codeTooManyStreams { // the status itself may be asked for
			var st Status
			if st, err = c.Status(ctx); err == nil {
				lost = time.Now()
				update(st)
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &told):
			return err
		case time.Since(lost) > followTries:
			return fmt.Errorf("the mirror has not answered for %s: %w", followTries, err)
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-ctx.Done():
		}
	}
}

// streamStatus reads the events of the status until the stream ends, which is an error.
func (c *Client) streamStatus(ctx context.Context, update func(Status)) error {
	return c.read(ctx, "/events?topic="+topicStatus, eventStatus, func(data []byte) (over bool, err error) {
		var st Status
		if err := json.Unmarshal(data, &st); err != nil {
			return false, fmt.Errorf("event of the status: %w", err)
		}
		update(st)
		return false, nil
	})
}

// read gives the data of the events of that name to take, until take says that it has all or the stream
// ends, which is an error.
func (c *Client) read(ctx context.Context, path, name string, take func(data []byte) (over bool, err error)) error {
	resp, err := c.send(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for event := ""; lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		if field == "event" {
			event = value
		}
		if field != "data" || event != name {
			continue
		}
		if over, err := take([]byte(value)); over || err != nil {
			return err
		}
	}
	return cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}

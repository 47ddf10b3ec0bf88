package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestTellHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		hang := make(chan struct{})
		checked, told := 0, 0
		check := func() {
			if checked++; checked == 4 {
				<-hang
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			tellHealth(ctx, 20*time.Second, check, func() { told++ })
		}()
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if told != 3 {
			t.Errorf("told %d times in a minute of health, want 3", told)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if told != 3 {
			t.Errorf("told %d times while the fourth check hangs", told-3)
		}
		close(hang)
		synctest.Wait()
		if told != 5 { // of the fourth check, and of the tick that came meanwhile
			t.Errorf("told %d times after the hang, want 2", told-3)
		}
		stop()
		<-done
	})
}

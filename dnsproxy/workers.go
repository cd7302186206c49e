package dnsproxy

import "sync"

// maxIdle is how many workers stay when there is nothing to do.
const maxIdle = 32

// workers carry out what takes longer than a reader may wait. One that is done stays for the next, because its stack has
// grown: to grow a new one takes a tenth of the time of a look-up.
type workers struct {
	jobs chan func()   // to those that are idle
	idle chan struct{} // counts them
	all  sync.WaitGroup
}

func newWorkers() *workers {
	return &workers{jobs: make(chan func()), idle: make(chan struct{}, maxIdle)}
}

// do has job done at once.
func (w *workers) do(job func()) {
	select {
	case w.jobs <- job:
		return
	default:
	}
	w.all.Go(func() {
		for job != nil {
			job()
			job = w.next()
		}
	})
}

// next waits for a job, and returns nil when there are enough that wait, or in the end.
func (w *workers) next() func() {
	select {
	case w.idle <- struct{}{}:
	default:
		return nil
	}
	job := <-w.jobs
	<-w.idle
	return job
}

// end waits until all is done. Nothing may be given to do any more.
func (w *workers) end() {
	close(w.jobs)
	w.all.Wait()
}

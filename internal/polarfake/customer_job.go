package polarfake

import "time"

// customerJob is an event of a customer whose payload is yet to be built.
type customerJob struct {
	customer  *customer
	eventType string
	debounced bool // runs a little later, outside the queue
	due       time.Time
}

// emitCustomer queues an event of a customer and the customer.state_changed that follows each.
func (f *Fake) emitCustomer(c *customer, eventType string) {
	f.queueCustomerJob(customerJob{customer: c, eventType: eventType})
	f.queueCustomerJob(customerJob{customer: c, eventType: "customer.state_changed"})
}

func (f *Fake) queueCustomerJob(job customerJob) {
	if len(f.endpoints.all) == 0 {
		return // nobody would hear of it
	}
	f.pending++
	if job.debounced {
		job.customer.statePending = true
		f.spawn(func() {
			if f.sleep(f.scaled(stateDebounce)) {
				f.runCustomerJob(job)
			}
		})
		return
	}
	job.due = time.Now().Add(f.options.CustomerEventDelay)
	f.jobs = append(f.jobs, job)
	select {
	case f.jobQueued <- struct{}{}:
	default:
	}
}

// runCustomerJobs builds the payloads of customer events one after another. Each shows the customer as it is by then.
func (f *Fake) runCustomerJobs() {
	for {
		f.mu.Lock()
		var job customerJob
		waiting := len(f.jobs) > 0
		if waiting {
			job, f.jobs = f.jobs[0], f.jobs[1:]
		}
		f.mu.Unlock()
		if !waiting {
			select {
			case <-f.jobQueued:
				continue
			case <-f.background.Done():
				return
			}
		}
		if !f.sleep(time.Until(job.due)) {
			return
		}
		f.runCustomerJob(job)
	}
}

func (f *Fake) runCustomerJob(job customerJob) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if job.eventType == "customer.state_changed" {
		if job.debounced {
			job.customer.statePending = false
		}
		f.emit(job.eventType, job.customer.ID, job.customer.state())
	} else {
		f.emit(job.eventType, job.customer.ID, job.customer.document())
	}
	f.pending--
	f.announce()
}

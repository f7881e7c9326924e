// Package attention has Go's scheduler look after code that may keep a processor.
package attention

// Pay has the scheduler look after what follows. It is called before somebody
// else's code runs, which may keep a processor for as long as it likes: the server
// reads requests without telling the scheduler, which may be asleep, and timers
// would then wait for a processor to be free.
func Pay() { pay() }

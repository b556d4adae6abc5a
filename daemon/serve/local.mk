# doors: control socket, shared memory

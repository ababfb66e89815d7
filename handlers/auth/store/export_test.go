package store

// UnderRace is set when the race detector runs.
const UnderRace = raced

// SharedMemory is where OpenMemory goes last.
var SharedMemory = &sharedMemory

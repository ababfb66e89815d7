package store

// UnderRace is set when the race detector runs.
const UnderRace = raced

//go:build prove

package main

func init() { breakStride = 1 }

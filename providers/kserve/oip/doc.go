// Package oip holds the messages and the client of the Open Inference Protocol (KServe
// v2) over gRPC, generated from inference.proto.
package oip

// The tools: protoc 35 or newer, and at the versions that the generated files name,
// google.golang.org/protobuf/cmd/protoc-gen-go and
// google.golang.org/grpc/cmd/protoc-gen-go-grpc.
//
//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative inference.proto

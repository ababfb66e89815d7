// Package wire holds the messages and the client of DeepSpeed-MII's gRPC service,
// generated from modelresponse.proto, and the replies of its older versions, from
// older.proto.
package wire

// The tools: protoc 35 or newer, and at the versions that the generated files name,
// google.golang.org/protobuf/cmd/protoc-gen-go and
// google.golang.org/grpc/cmd/protoc-gen-go-grpc.
//
//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative modelresponse.proto older.proto

// Package languages has portico.v1 in the words of other languages than Go: files that
// guests include, and copy.
package languages

import "embed"

// Files are portico.h for C, portico.rs for Rust and portico.ts for AssemblyScript.
//
//go:embed portico.h portico.rs portico.ts
var Files embed.FS

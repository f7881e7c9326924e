// Package house keeps the rules of this repository as tests: who may import
// whom, how big a thing may grow, and what must stand where.
package house

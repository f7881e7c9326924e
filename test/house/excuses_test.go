package house

// excuses names what may be bigger than the rules allow, and why: a file by its
// path, a function by path:Name or path:Type.Name.
var excuses = map[string]string{}

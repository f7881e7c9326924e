# METADATA
# title: Writes that change nothing, or never win
# description: |
#   Holds callers that have written the same thing again and again, or lost to
#   another writer again and again, more than settings.tolerated times in the
#   last minute, to one write of an object in settings.secondsBetween.
# scope: package
# schemas:
#   - input: schema.request
package portico.write_loops

limits contains {
	"id": "write-loop",
	"key": [input.user.name, input.apiGroup, input.resource, input.namespace, input.name],
	"tokens": {"rate": 1 / data.settings.secondsBetween, "burst": 1},
	"message": sprintf("%s wrote %s that changed nothing %d times in a minute, and lost to other writers %d times: compare before you write, and back off", [
		input.user.name,
		input.resource,
		input.observed.noopWrites,
		input.observed.conflicts,
	]),
} if {
	input.verb in {"update", "patch"}
	input.observed.noopWrites + input.observed.conflicts > data.settings.tolerated
}

# METADATA
# title: Lists that could be watches
# description: |
#   Keeps callers that list a whole resource over and over, at its newest
#   version, to settings.listsPerMinute, with a burst of settings.listBurst.
#   Informers are not concerned: they list once, and then watch.
# scope: package
# schemas:
#   - input: schema.request
package portico.quorum_list

limits contains {
	"id": "quorum-list",
	"key": [input.user.name, input.apiGroup, input.resource],
	"tokens": {"rate": data.settings.listsPerMinute / 60, "burst": data.settings.listBurst},
	"message": sprintf("%s lists all %s at their newest version again and again: use an informer, or resourceVersion=0", [input.user.name, input.resource]),
} if {
	input.verb == "list"
	input.namespace == ""
	input.options.resourceVersion == ""
	not input.options.continue
	not selective
}

selective if input.options.labelSelector != ""

selective if input.options.fieldSelector != ""

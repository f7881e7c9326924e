# METADATA
# title: Own objects
# description: |
#   Of settings.resources, a caller sees the objects whose label settings.label
#   names one of his teams. These are his groups that begin with
#   settings.groupPrefix, without it. Who is in no team sees none of them.
# scope: package
# schemas:
#   - input: schema.view.caller
package portico.own_objects

selectors contains {
	"resources": data.settings.resources,
	"selector": {"matchExpressions": [{"key": data.settings.label, "operator": "In", "values": teams}]},
}

teams contains trim_prefix(group, data.settings.groupPrefix) if {
	some group in input.user.groups
	startswith(group, data.settings.groupPrefix)
}

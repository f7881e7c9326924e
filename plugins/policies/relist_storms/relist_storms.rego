# METADATA
# title: Everybody begins anew at once
# description: |
#   After a restart all agents of a node read everything again. Lets them do so
#   turn by turn, settings.seatsPerSecond at a time, as API Priority and Fairness
#   counts seats. Nobody is refused who can wait for settings.patience.
# scope: package
# schemas:
#   - input: schema.request
package portico.relist_storms

limits contains {
	"id": "relist",
	"key": [input.apiGroup, input.resource],
	"tokens": {"rate": data.settings.seatsPerSecond, "burst": data.settings.seatsPerSecond},
	"cost": input.estimate.seats,
	"onExceed": "Delay",
	"maxDelay": data.settings.patience,
	"applies": "Upstream",
	"message": sprintf("many clients read all %s at once", [input.resource]),
} if {
	begins_anew
	input.namespace == ""
}

begins_anew if {
	input.verb == "list"
	not input.options.continue
}

begins_anew if {
	input.verb == "watch"
	input.options.sendInitialEvents
}

package portico.relist_storms_test

import data.portico.relist_storms

request := {
	"verb": "list",
	"apiGroup": "",
	"resource": "pods",
	"namespace": "",
	"options": {"continue": false, "sendInitialEvents": false},
	"estimate": {"seats": 7},
}

limits(changes) := found if {
	settings := {"seatsPerSecond": 20, "patience": "20s"}
	found := relist_storms.limits with input as object.union(request, changes) with data.settings as settings
}

test_a_list_takes_its_seats if {
	some limit in limits({})
	limit.cost == 7
	limit.onExceed == "Delay"
}

test_a_watch_that_begins_with_the_state_does_too if {
	count(limits({"verb": "watch", "options": {"sendInitialEvents": true}})) == 1
}

test_others_do_not if {
	count(limits({"verb": "watch"})) == 0
	count(limits({"options": {"continue": true}})) == 0
	count(limits({"namespace": "shop"})) == 0
}

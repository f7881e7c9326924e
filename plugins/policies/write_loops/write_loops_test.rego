package portico.write_loops_test

import data.portico.write_loops

request(noops, conflicts) := {
	"user": {"name": "looper"},
	"verb": "update",
	"apiGroup": "",
	"resource": "configmaps",
	"namespace": "shop",
	"name": "web",
	"observed": {"noopWrites": noops, "conflicts": conflicts},
}

limits(input_) := found if {
	found := write_loops.limits with input as input_ with data.settings as {"tolerated": 20, "secondsBetween": 4}
}

test_few_are_tolerated if count(limits(request(10, 10))) == 0

test_loops_are_limited if {
	some limit in limits(request(15, 10))
	limit.tokens == {"rate": 0.25, "burst": 1}
	contains(limit.message, "15 times")
}

test_readers_are_not if count(limits(object.union(request(99, 99), {"verb": "get"}))) == 0

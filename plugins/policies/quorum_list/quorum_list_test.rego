package portico.quorum_list_test

import data.portico.quorum_list

loop := {
	"user": {"name": "system:serviceaccount:shop:looper"},
	"verb": "list",
	"apiGroup": "",
	"resource": "pods",
	"namespace": "",
	"options": {"resourceVersion": "", "continue": false, "labelSelector": "", "fieldSelector": ""},
}

settings := {"listsPerMinute": 6, "listBurst": 3}

limits(request) := found if {
	found := quorum_list.limits with input as request with data.settings as settings
}

test_a_loop_is_limited if {
	some limit in limits(loop)
	limit.key == ["system:serviceaccount:shop:looper", "", "pods"]
	limit.tokens == {"rate": 0.1, "burst": 3}
}

test_others_are_not if {
	every change in [
		{"path": "/verb", "value": "watch"},
		{"path": "/namespace", "value": "shop"},
		{"path": "/options/resourceVersion", "value": "0"},
		{"path": "/options/continue", "value": true},
		{"path": "/options/fieldSelector", "value": "spec.nodeName=n1"},
	] {
		count(limits(json.patch(loop, [object.union(change, {"op": "replace"})]))) == 0
	}
}

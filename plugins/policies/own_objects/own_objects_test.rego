package portico.own_objects_test

import data.portico.own_objects

settings := {
	"label": "team",
	"groupPrefix": "team:",
	"resources": [{"group": "", "resource": "configmaps"}],
}

teams_of(groups) := selector.selector.matchExpressions[0].values if {
	some selector in own_objects.selectors with input as {"user": {"groups": groups}} with data.settings as settings
}

test_one_selector_for_all_teams if teams_of(["team:red", "team:blue", "system:authenticated"]) == {"red", "blue"}

test_no_team_is_no_value if teams_of(["system:authenticated"]) == set()

test_others_resources_are_left_alone if {
	some selector in own_objects.selectors with input as {"user": {"groups": []}} with data.settings as settings
	selector.resources == settings.resources
}

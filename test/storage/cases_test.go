package storage

import (
	"context"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// suiteCase is one function of the suite.
type suiteCase struct {
	name string
	run  func(context.Context, *testing.T, *store)
	// alone cases set a feature gate, which only one may do at a time.
	alone bool
	// hasty cases give events no more than 150 ms to arrive.
	hasty bool
	// whole cases want to hear soon of what happens in other namespaces, which a
	// proxy that keeps one does not.
	whole bool
	// stale cases want reads at resourceVersion=0 to be no newer than the last
	// write, whatever was read since. So proxies that have begun learn nothing more.
	stale bool
	// newest cases write, and read but the newest version of one object, which is
	// upstream's to tell. They are run where they might show something.
	newest bool
	// clusterScoped cases have objects without namespaces.
	clusterScoped bool
	// coldWrites is after how many writes the proxy begins: its history then
	// begins there too.
	coldWrites int
	// beyond is how many reads have keys without a URL. They are answered by the
	// API server's watch cache itself.
	beyond int
}

// suite is every function of the suite that reads, but for those left out.
var suite = []suiteCase{
	// Two names are of objects outside namespaces.
	{name: "RunTestGet", beyond: 2, run: func(ctx context.Context, t *testing.T, s *store) {
		s.api.etcd.Lease = hours{s.api.etcd.Lease}
		storagetesting.RunTestGet(ctx, t, s)
	}},
	// The suite compacts etcd up to the first object. What the proxy remembers
	// knows no compaction, so it begins there.
	{name: "RunTestList", coldWrites: 1, run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestList(ctx, t, s, s.compact, true, storagetesting.NewKubernetesRecorder(nil))
	}},
	// A watch cache that has waited for a revision is known to have reached it.
	// A proxy may have fetched what was asked for, and stay where it was.
	{name: "RunTestConsistentList", stale: true, run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestConsistentList(ctx, t, s, s.increaseRV, true, len(s.proxies) == 0, true)
	}},
	// Two keys are of objects outside namespaces.
	{name: "RunTestGetListNonRecursive", beyond: 2, run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestGetListNonRecursive(ctx, t, s.increaseRV, s)
	}},
	// Half the keys are of objects and listed as directories, or the reverse.
	{name: "RunTestGetListRecursivePrefix", beyond: 12, run: plain(storagetesting.RunTestGetListRecursivePrefix)},
	{name: "RunTestListContinuation", run: pages(storagetesting.RunTestListContinuation)},
	{name: "RunTestListPaginationRareObject", run: pages(storagetesting.RunTestListPaginationRareObject)},
	{name: "RunTestListContinuationWithFilter", run: pages(storagetesting.RunTestListContinuationWithFilter)},
	{name: "RunTestListPaging", run: plain(storagetesting.RunTestListPaging)},
	{name: "RunTestNamespaceScopedList", run: plain(storagetesting.RunTestNamespaceScopedList)},
	{name: "RunTestCompactRevision", run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestCompactRevision(ctx, t, s, s.increaseRV, s.compactAndRestart)
	}},

	{name: "RunTestWatch", run: plain(storagetesting.RunTestWatch)},
	{name: "RunTestWatchFromZero", run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestWatchFromZero(ctx, t, s, s.compactAndRestart)
	}},
	{name: "RunTestWatchFromNonZero", run: plain(storagetesting.RunTestWatchFromNonZero)},
	{name: "RunTestDeleteTriggerWatch", run: plain(storagetesting.RunTestDeleteTriggerWatch)},
	{name: "RunTestCreateWithTTL", run: plain(storagetesting.RunTestCreateWithTTL)},
	{name: "RunTestGuaranteedUpdateWithTTL", run: plain(storagetesting.RunTestGuaranteedUpdateWithTTL)},
	{name: "RunTestDelayedWatchDelivery", run: plain(storagetesting.RunTestDelayedWatchDelivery)},
	{name: "RunTestWatcherTimeout", run: plain(storagetesting.RunTestWatcherTimeout)},
	{name: "RunTestWatchDeleteEventObjectHaveLatestRV", run: plain(storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV)},
	{name: "RunTestWatchInitializationSignal", run: plain(storagetesting.RunTestWatchInitializationSignal)},
	{name: "RunTestClusterScopedWatch", clusterScoped: true, run: plain(storagetesting.RunTestClusterScopedWatch)},
	{name: "RunTestNamespaceScopedWatch", run: plain(storagetesting.RunTestNamespaceScopedWatch)},
	{name: "RunTestWatchDispatchBookmarkEvents", whole: true, run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, s, true)
	}},
	{name: "RunTestOptionalWatchBookmarksWithCorrectResourceVersion", run: plain(storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion)},
	{name: "RunSendInitialEventsBackwardCompatibility", run: plain(storagetesting.RunSendInitialEventsBackwardCompatibility)},
	{name: "RunWatchSemantics", alone: true, hasty: true, run: plain(storagetesting.RunWatchSemantics)},
	{name: "RunWatchSemanticInitialEventsExtended", alone: true, run: plain(storagetesting.RunWatchSemanticInitialEventsExtended)},
	{name: "RunWatchListMatchSingle", alone: true, run: plain(storagetesting.RunWatchListMatchSingle)},

	{name: "RunTestCreate", newest: true, run: func(ctx context.Context, t *testing.T, s *store) {
		storagetesting.RunTestCreate(ctx, t, s, func(context.Context, *testing.T, string) {})
	}},
	{name: "RunTestDeleteWithSuggestion", newest: true, run: plain(storagetesting.RunTestDeleteWithSuggestion)},
	{name: "RunTestDeleteWithSuggestionAndConflict", newest: true, run: plain(storagetesting.RunTestDeleteWithSuggestionAndConflict)},
	{name: "RunTestDeleteWithConflict", newest: true, run: plain(storagetesting.RunTestDeleteWithConflict)},
	{name: "RunTestValidateDeletionWithSuggestion", newest: true, run: plain(storagetesting.RunTestValidateDeletionWithSuggestion)},
	{name: "RunTestValidateDeletionWithOnlySuggestionValid", newest: true, run: plain(storagetesting.RunTestValidateDeletionWithOnlySuggestionValid)},
	{name: "RunTestPreconditionalDeleteWithSuggestion", newest: true, run: plain(storagetesting.RunTestPreconditionalDeleteWithSuggestion)},
	{name: "RunTestPreconditionalDeleteWithOnlySuggestionPass", newest: true, run: plain(storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass)},
}

// Why functions of the suite are left out.
const (
	readsNothing = "it reads nothing"
	undecodable  = "it needs objects that cannot be decoded, which a watch cache has decoded long before: upstream leaves it out for its own watch cache, or has it for the sake of a write"
)

// leftOut are the functions of the suite that say nothing about reads over HTTP.
var leftOut = map[string]string{
	"RunTestCreateWithKeyExist":                        readsNothing,
	"RunTestUnconditionalDelete":                       readsNothing,
	"RunTestConditionalDelete":                         readsNothing,
	"RunTestDeleteWithSuggestionOfDeletedObject":       readsNothing,
	"RunTestGuaranteedUpdate":                          readsNothing,
	"RunTestGuaranteedUpdateChecksStoredData":          readsNothing,
	"RunTestGuaranteedUpdateWithConflict":              readsNothing,
	"RunTestGuaranteedUpdateWithSuggestionAndConflict": readsNothing,
	"RunTestStats":                                     readsNothing + ": the size of etcd's objects is not in the API",

	"RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError":   undecodable,
	"RunTestDeleteExpectedTransformOrDecodeError":                         undecodable,
	"RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError": undecodable,
	"RunTestGetListWithErrorAggregation":                                  undecodable,
	"RunTestGetListWithoutErrorAggregation":                               undecodable,
	"RunTestTransformationFailure":                                        undecodable,
	"RunTestWatchError":                                                   undecodable,
	"RunTestWatchWithUnsafeDelete":                                        undecodable,
	"RunWatchErrorIsBlockingFurtherEvents":                                undecodable,

	"RunTestListResourceVersionMatch": "it writes whenever an object is decoded, and a watch cache decodes what is written: it would never end",
	"RunTestListInconsistentContinuation": "it wants pages at resourceVersion=0, where a watch cache ignores the limit; " +
		"TestExpiredPages does the same at the newest version",
	"RunTestKeySchema":              "it spells keys wrongly, and they are the API server's own",
	"RunTestWatchContextCancel":     "a request whose context has ended is never sent",
	"RunOptionalTestProgressNotify": "progress without an event is something that only etcd's clients can ask for",
}

// TestSuiteIsComplete holds what is run and what is left out against what there
// is, as that may change with every version.
func TestSuiteIsComplete(t *testing.T) {
	named := maps.Clone(leftOut)
	for _, c := range suite {
		if _, twice := named[c.name]; twice {
			t.Errorf("%s is named twice", c.name)
		}
		named[c.name] = "run"
	}
	pkg, err := build.Import("k8s.io/apiserver/pkg/storage/testing", ".", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pkg.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Run") || strings.HasPrefix(f.Name.Name, "RunBenchmark") {
				continue
			}
			if _, ok := named[f.Name.Name]; !ok {
				t.Errorf("%s is neither run nor left out for a reason", f.Name.Name)
			}
			delete(named, f.Name.Name)
		}
	}
	for name := range named {
		t.Errorf("there is no %s", name)
	}
}

// hours are what seconds are to the suite, whose parallel tests may have to
// wait for their turn longer than an object lives.
type hours struct{ clientv3.Lease }

// Grant makes a lease of so many hours.
func (h hours) Grant(ctx context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	return h.Lease.Grant(ctx, ttl*3600)
}

// plain runs a function that needs nothing but a storage.
func plain[S any](f func(context.Context, *testing.T, S)) func(context.Context, *testing.T, *store) {
	return func(ctx context.Context, t *testing.T, s *store) { f(ctx, t, any(s).(S)) }
}

// pages runs a function that counts what etcd reads. That is the API server's
// own business, with the proxy or without.
func pages[S any](f func(context.Context, *testing.T, S, storagetesting.CallsValidation)) func(context.Context, *testing.T, *store) {
	return func(ctx context.Context, t *testing.T, s *store) { f(ctx, t, any(s).(S), nil) }
}

// compact makes etcd forget what was before rv.
func (s *store) compact(ctx context.Context, t *testing.T, rv string) {
	t.Helper()
	s.api.compact(ctx, t, rv)
}

// compactAndRestart does so, and everybody else forgets what they remember:
// neither the API server's watch history nor the proxy's follow a compaction.
func (s *store) compactAndRestart(ctx context.Context, t *testing.T, rv string) {
	t.Helper()
	s.compact(ctx, t, rv)
	s.api.restart()
	for _, p := range s.proxies {
		p.restart()
	}
	s.warm(t)
}

// increaseRV moves etcd's revision on by something that nobody here reads.
func (s *store) increaseRV(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	res, err := s.api.etcd.KV.Put(ctx, "elsewhere", "")
	if err != nil {
		t.Fatal(err)
	}
	return res.Header.Revision
}

import { useQueryClient } from '@tanstack/react-query';
import { useEffect, useMemo, useRef, useState, type ReactNode } from 'react';
import { lookAgain, useGitDiff, useGitStatus, type GitStatus } from '@/api/git';
import { isBoolean, useStored } from '@/app/stored';
import { Button } from '@/ui/button';
import { SkeletonRows } from '@/ui/skeleton';
import { Split } from '@/ui/split';
import { Tabs, TabPanel } from '@/ui/tabs';
import { DiffBody, NoStatus, Notices } from './body';
import { CommitBox } from './commit-box';
import { filesWord } from './commit';
import { DiffList, type DiffListHandle, type FileActions } from './diff-list';
import { isWhole, type ReviewFile } from './diff/files';
import { diffRows, type DiffView } from './diff/rows';
import { FileTree } from './file-tree';
import { History } from './history';
import { diffOf, emptySentence, type Place, type Scope } from './scope';
import { commitOfScope, useChoice, useFiles, useLayout, useReviewCommands } from './state';
import { SyncBar, SyncResult, useSync } from './sync';
import { Toolbar } from './toolbar';
import { useViewed } from './viewed';
import { useWidth } from './width';

const WIDE_PX = 820;
const SPLIT_PX = 1_000;
const isView = (value: unknown): value is DiffView => value === 'unified' || value === 'split';

export type ReviewPanelProps = {
  sessionId: string;
  environmentId: string;
  /** For a rail beside something else: one column, with a way to the whole page. */
  compact?: boolean;
  onClose?: () => void;
  /** Where it is, for those who keep that themselves; else it keeps it itself. */
  place?: Place;
  onPlace?: (place: Place) => void;
};

/** All that a review is made of: what changed, the commit, and the way to the remote and back. */
export function ReviewPanel({ place, onPlace, ...rest }: ReviewPanelProps) {
  const [own, setOwn] = useState<Place>({ scope: { kind: 'uncommitted' } });
  const status = useGitStatus(rest.sessionId);
  const error = status.error;
  if (status.data === undefined) {
    return (
      <div className="flex min-h-0 flex-1 flex-col">
        {status.isPending && <SkeletonRows rows={6} label="Looking at what changed" />}
        {error && (
          <NoStatus error={error} busy={status.isFetching} onRetry={() => void status.refetch()} {...rest} />
        )}
      </div>
    );
  }
  return <Review {...rest} status={status.data} place={place ?? own} onPlace={onPlace ?? setOwn} />;
}

type ReviewProps = Omit<ReviewPanelProps, 'place' | 'onPlace'> & {
  status: GitStatus;
  place: Place;
  onPlace: (place: Place) => void;
};

function Review(props: ReviewProps) {
  const { sessionId, environmentId, status, place, onPlace, compact = false } = props;
  const { scope } = place;
  const { width, setElement } = useWidth();
  const wide = !compact && width >= WIDE_PX;
  const queries = useQueryClient();
  const [view, setView] = useStored<DiffView>('review.view', 'unified', isView);
  const [wrap, setWrap] = useStored('review.wrap', true, isBoolean);
  const [tab, setTab] = useState<'files' | 'diff' | 'history'>(place.file === undefined ? 'files' : 'diff');
  const [current, setCurrent] = useState<string | undefined>(place.file);
  const list = useRef<DiffListHandle>(null);
  const viewed = useViewed();
  const sync = useSync(sessionId);
  const of = diffOf(scope, status);
  const diff = useGitDiff(sessionId, of);
  const { files, load } = useFiles(sessionId, of, diff.data);
  const layout = useLayout(sessionId, files, viewed);
  const canSplit = width >= SPLIT_PX;
  const shownView = canSplit ? view : 'unified';
  const rows = useMemo(
    () => diffRows(files, { view: shownView, closed: layout.closed, unfolded: layout.unfolded }),
    [files, shownView, layout.closed, layout.unfolded],
  );
  const choice = useChoice(scope);
  const look = () => void lookAgain(queries, sessionId);
  const setScope = (next: Scope) => {
    onPlace({ scope: next });
    if (tab === 'history') setTab('files');
  };

  const markViewed = (file: ReviewFile, yes: boolean) => {
    viewed.set(sessionId, [file], yes);
    layout.close([file], yes);
  };
  const actions: FileActions = {
    isViewed: (file) => viewed.has(sessionId, file),
    onViewed: markViewed,
    onToggle: (file) => layout.close([file], !layout.closed.has(file.id)),
    onUnfold: layout.unfold,
    onLoad: load.ask,
    loading: load.loading,
    failure: load.failure,
  };
  const goTo = (file: ReviewFile) => {
    setCurrent(file.id);
    setTab('diff');
    // In one column the list is only now being made.
    requestAnimationFrame(() => requestAnimationFrame(() => list.current?.toFile(file.id)));
  };
  const currentFile = files.find((one) => one.id === current);
  useReviewCommands({
    list,
    look,
    toggleView: canSplit ? () => setView(view === 'split' ? 'unified' : 'split') : undefined,
    toggleViewed: currentFile
      ? () => markViewed(currentFile, !viewed.has(sessionId, currentFile))
      : undefined,
    push: () => sync.push(),
    pull: () => sync.pull(),
  });
  // The file that an address names is gone to once it is there.
  const wanted = useRef(place.file);
  useEffect(() => {
    if (wanted.current === undefined || !list.current || !files.some((one) => one.id === wanted.current))
      return;
    list.current.toFile(wanted.current);
    wanted.current = undefined;
  });

  const body = (
    <DiffBody
      diff={diff}
      scope={scope}
      files={files}
      sessionId={sessionId}
      onBase={(base) => setScope({ kind: 'base', base })}
    >
      <DiffList
        ref={list}
        rows={rows}
        view={shownView}
        wrap={wrap}
        actions={actions}
        onCurrent={setCurrent}
        className="min-h-0 flex-1"
      />
    </DiffBody>
  );
  const commitOf = commitOfScope(scope, files, status, choice, diff.data?.truncated === true);
  const side = (
    <>
      {diff.data === undefined && !diff.isError ? (
        <SkeletonRows rows={4} label="Loading the files" />
      ) : files.length === 0 ? (
        <p className="flex-1 px-3 py-6 text-center text-sm text-fg-2">{emptySentence(scope)}</p>
      ) : (
        <FileTree
          files={files}
          current={wide ? current : undefined}
          sessionId={sessionId}
          viewed={viewed}
          choice={commitOf?.kind === 'files' ? choice : undefined}
          onOpen={goTo}
        />
      )}
      <div className="flex max-h-[60%] shrink-0 flex-col gap-3 overflow-y-auto border-t border-line p-3 empty:hidden">
        <SyncResult sync={sync} environmentId={environmentId} onLook={look} />
        {commitOf !== undefined && (
          <CommitBox
            sessionId={sessionId}
            environmentId={environmentId}
            status={status}
            of={commitOf}
            small={!wide}
          />
        )}
        {scope.kind === 'base' && status.files.length > 0 && (
          <Button onClick={() => setScope({ kind: 'uncommitted' })}>
            Commit {filesWord(status.files.length)}…
          </Button>
        )}
      </div>
      <div className="shrink-0 border-t border-line p-3">
        <SyncBar status={status} sync={sync} />
      </div>
    </>
  );
  const history = <History sessionId={sessionId} onCompare={(base) => setScope({ kind: 'base', base })} />;
  return (
    <div ref={setElement} className="flex min-h-0 min-w-0 flex-1 flex-col">
      <Toolbar
        sessionId={sessionId}
        environmentId={environmentId}
        scope={scope}
        compact={compact}
        onClose={props.onClose}
        files={files}
        busy={diff.isFetching}
        look={look}
        setScope={setScope}
        wide={wide}
        view={canSplit ? { view, setView } : undefined}
        wrap={{ wrap, setWrap }}
        viewedCount={files.filter((file) => viewed.has(sessionId, file)).length}
        onCloseAll={(yes) => layout.close(files, yes)}
        onViewAll={() => {
          const whole = files.filter((file) => file.binary || isWhole(file));
          viewed.set(sessionId, whole, true);
          layout.close(whole, true);
        }}
      />
      <Notices status={status} diff={diff.data} files={files} sessionId={sessionId} load={load.askAll} />
      {width === 0 ? null : wide ? (
        <Split
          id="review"
          label="Width of the file list"
          initial={0.27}
          min={0.18}
          max={0.5}
          first={
            <SideTabs tab={tab === 'history' ? 'history' : 'files'} onTab={setTab} count={files.length}>
              {tab === 'history' ? history : side}
            </SideTabs>
          }
          second={<div className="flex size-full min-h-0 flex-col">{body}</div>}
        />
      ) : (
        <Tabs
          label="Review"
          value={tab}
          onChange={setTab}
          tabs={[
            { value: 'files', label: 'Files', count: files.length },
            { value: 'diff', label: 'Changes' },
            { value: 'history', label: 'History' },
          ]}
          className="flex min-h-0 flex-1 flex-col [&>[role=tablist]]:px-2"
        >
          <TabPanel value="files" className="flex min-h-0 flex-1 flex-col pt-0 data-[state=inactive]:hidden">
            {side}
          </TabPanel>
          <TabPanel value="diff" className="flex min-h-0 flex-1 flex-col pt-0 data-[state=inactive]:hidden">
            {body}
          </TabPanel>
          <TabPanel
            value="history"
            className="flex min-h-0 flex-1 flex-col pt-0 data-[state=inactive]:hidden"
          >
            {history}
          </TabPanel>
        </Tabs>
      )}
    </div>
  );
}

function SideTabs({
  tab,
  onTab,
  count,
  children,
}: {
  tab: 'files' | 'history';
  onTab: (tab: 'files' | 'history') => void;
  count: number;
  children: ReactNode;
}) {
  return (
    <Tabs
      label="Review"
      value={tab}
      onChange={onTab}
      tabs={[
        { value: 'files', label: 'Changes', count },
        { value: 'history', label: 'History' },
      ]}
      className="flex size-full min-h-0 flex-col [&>[role=tablist]]:px-2"
    >
      <TabPanel value={tab} className="flex min-h-0 flex-1 flex-col pt-0">
        {children}
      </TabPanel>
    </Tabs>
  );
}

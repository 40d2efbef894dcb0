import { Check, ChevronRight, Eye, Folder, FolderOpen, Search } from 'lucide-react';
import { useRef, useState } from 'react';
import { useCommands } from '@/app/commands';
import { useRowKeys } from '@/app/rows';
import { cn } from '@/ui/cn';
import { Input } from '@/ui/input';
import { VirtualList } from '@/ui/virtual-list';
import type { ReviewFile } from './diff/files';
import { matching, treeRows, type TreeRow } from './diff/tree';
import { Counts, StatusLetter } from './marks';
import { TickBox } from './tick-box';
import type { Viewed } from './viewed';
import { Visible } from './visible';

const ROW_PX = 28;
const INDENT_PX = 14;

export type Choice = {
  has: (file: ReviewFile) => boolean;
  set: (files: readonly ReviewFile[], chosen: boolean) => void;
};

/** The changed files as a tree, to be found, gone to, and chosen for a commit. */
export function FileTree({
  files,
  current,
  sessionId,
  viewed,
  choice,
  onOpen,
}: {
  files: readonly ReviewFile[];
  current: string | undefined;
  sessionId: string;
  viewed: Viewed;
  /** Shows a box beside each file where files can be chosen. */
  choice: Choice | undefined;
  onOpen: (file: ReviewFile) => void;
}) {
  const [search, setSearch] = useState('');
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const box = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const found = matching(files, search);
  // What was looked for is shown wherever it is.
  const rows = treeRows(found, search.trim() === '' ? closed : new Set());
  useRowKeys(list);
  useCommands([
    {
      id: 'list.search',
      title: 'Filter the list',
      group: 'Lists',
      keys: '/',
      keysOnly: true,
      run: () => box.current?.focus(),
    },
  ]);
  const toggle = (path: string) => {
    const next = new Set(closed);
    if (!next.delete(path)) next.add(path);
    setClosed(next);
  };
  return (
    <div className="flex min-h-0 flex-1 flex-col">
      <div className="flex items-center gap-2 p-2">
        {choice && files.length > 0 && <ChooseAll files={found} choice={choice} />}
        <div className="min-w-0 flex-1">
          <Input
            ref={box}
            icon={Search}
            type="search"
            aria-label="Filter the files"
            placeholder="Filter files"
            value={search}
            onChange={(event) => setSearch(event.target.value)}
            className="h-8 text-sm"
          />
        </div>
      </div>
      {rows.length === 0 && files.length > 0 && (
        <p role="status" className="px-3 py-6 text-center text-sm text-fg-2">
          None of the {files.length} files fits.
        </p>
      )}
      <div ref={list} className="flex min-h-0 flex-1 flex-col">
        {rows.length > 0 && (
          <VirtualList
            label="Changed files"
            items={rows}
            rowKey={(row) => (row.type === 'folder' ? `d ${row.path}` : `f ${row.file.id}`)}
            estimate={ROW_PX}
            className="min-h-0 flex-1 px-1 pb-2"
            row={(row) =>
              row.type === 'folder' ? (
                <FolderRow row={row} choice={choice} onToggle={() => toggle(row.path)} />
              ) : (
                <FileRow
                  row={row}
                  current={row.file.id === current}
                  viewed={viewed.has(sessionId, row.file)}
                  choice={choice}
                  onOpen={() => onOpen(row.file)}
                />
              )
            }
          />
        )}
      </div>
    </div>
  );
}

const ROW =
  'group relative flex h-7 min-w-0 items-center gap-1.5 rounded-md pr-2 text-sm pointer-coarse:h-11';

function ChooseAll({ files, choice }: { files: readonly ReviewFile[]; choice: Choice }) {
  return (
    <TickBox
      label="All files into the commit"
      checked={stateOf(files, choice)}
      onChange={(checked) => choice.set(files, checked)}
      className="ml-1.5"
    />
  );
}

function stateOf(files: readonly ReviewFile[], choice: Choice): boolean | 'indeterminate' {
  const chosen = files.filter((file) => choice.has(file)).length;
  return chosen === 0 ? false : chosen === files.length ? true : 'indeterminate';
}

function FolderRow({
  row,
  choice,
  onToggle,
}: {
  row: Extract<TreeRow, { type: 'folder' }>;
  choice: Choice | undefined;
  onToggle: () => void;
}) {
  const Icon = row.open ? FolderOpen : Folder;
  return (
    <div className={cn(ROW, 'hover:bg-hover')} style={{ paddingLeft: 6 + row.depth * INDENT_PX }}>
      {choice && (
        <TickBox
          label={`All of ${row.path} into the commit`}
          checked={stateOf(row.files, choice)}
          onChange={(checked) => choice.set(row.files, checked)}
        />
      )}
      <button
        type="button"
        data-row
        aria-expanded={row.open}
        onClick={onToggle}
        className="flex h-full min-w-0 flex-1 items-center gap-1.5 rounded-md text-left text-fg-2 focus-inset"
      >
        <ChevronRight
          aria-hidden
          className={cn('size-3.5 shrink-0 text-fg-3 transition-transform', row.open && 'rotate-90')}
        />
        <Icon aria-hidden className="size-4 shrink-0 text-fg-3" />
        <span className="truncate" title={row.path}>
          <Visible text={row.label} />
        </span>
        {!row.open && <span className="ml-auto text-xs text-fg-3 tabular-nums">{row.files.length}</span>}
      </button>
    </div>
  );
}

function FileRow({
  row,
  current,
  viewed,
  choice,
  onOpen,
}: {
  row: Extract<TreeRow, { type: 'file' }>;
  current: boolean;
  viewed: boolean;
  choice: Choice | undefined;
  onOpen: () => void;
}) {
  const { file } = row;
  return (
    <div
      className={cn(ROW, current ? 'bg-active' : 'hover:bg-hover')}
      style={{ paddingLeft: 6 + row.depth * INDENT_PX }}
    >
      {choice && (
        <TickBox
          label={`${file.name.name} into the commit`}
          checked={choice.has(file)}
          onChange={(checked) => choice.set([file], checked)}
        />
      )}
      <button
        type="button"
        data-row
        aria-current={current || undefined}
        onClick={onOpen}
        title={file.original ? `${file.original.name} → ${file.name.name}` : file.name.name}
        className="flex h-full min-w-0 flex-1 items-center gap-1.5 rounded-md text-left focus-inset"
      >
        <StatusLetter status={file.status} />
        <span
          className={cn(
            'min-w-0 flex-1 truncate',
            viewed ? 'text-fg-3' : 'text-fg',
            file.status === 'deleted' && 'line-through decoration-fg-3',
          )}
        >
          <Visible text={row.label} />
        </span>
        {file.hidden > 0 && (
          <Eye role="img" aria-label="has hidden characters" className="size-3.5 shrink-0 text-warn" />
        )}
        {viewed && (
          <Check role="img" aria-label="viewed" strokeWidth={2.5} className="size-3.5 shrink-0 text-fg-3" />
        )}
        <Counts added={file.added} removed={file.removed} />
      </button>
    </div>
  );
}

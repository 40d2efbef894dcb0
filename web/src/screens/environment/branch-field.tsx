import { Check, ChevronsUpDown, GitBranch, Globe, Laptop } from 'lucide-react';
import { Command } from 'cmdk';
import { useState } from 'react';
import { useBranches, type Branch } from '@/api/git';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { CONTROL } from '@/ui/input';
import { Ago } from '@/ui/time';
import { branchesFitting } from './start-from';

const SHOWN = 60;

/** Chooses one of the repository's branches: a field that opens to a list with a search. */
export function BranchField({
  environmentId,
  label,
  hint,
  error,
  value,
  onChange,
  unfit,
  openAtFirst = false,
}: {
  environmentId: string;
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  value: string;
  onChange: (branch: string) => void;
  /** Why a branch cannot be chosen; undefined where it can. */
  unfit?: ((branch: Branch) => string | undefined) | undefined;
  openAtFirst?: boolean;
}) {
  const [open, setOpen] = useState(openAtFirst);
  return (
    <div className="flex flex-col gap-2">
      <Field label={label} hint={hint} error={error}>
        {(control) => (
          <button
            type="button"
            {...control}
            aria-expanded={open}
            onClick={() => setOpen(!open)}
            className={cn(
              CONTROL,
              'flex h-9 items-center gap-2 px-3 text-left pointer-coarse:h-11',
              value === '' && 'text-fg-3',
            )}
          >
            <GitBranch aria-hidden className="size-4 shrink-0 text-fg-3" />
            <span className={cn('min-w-0 flex-1 truncate', value !== '' && 'font-mono')}>
              {value === '' ? 'Choose a branch…' : value}
            </span>
            <ChevronsUpDown aria-hidden className="size-4 shrink-0 text-fg-3" />
          </button>
        )}
      </Field>
      {open && (
        <BranchList
          environmentId={environmentId}
          value={value}
          unfit={unfit}
          onChoose={(branch) => {
            onChange(branch);
            setOpen(false);
          }}
        />
      )}
    </div>
  );
}

function BranchList({
  environmentId,
  value,
  unfit,
  onChoose,
}: {
  environmentId: string;
  value: string;
  unfit: ((branch: Branch) => string | undefined) | undefined;
  onChoose: (branch: string) => void;
}) {
  const [search, setSearch] = useState('');
  const branches = useBranches(environmentId);
  if (branches.isError && branches.data === undefined) {
    return (
      <div className="flex flex-col items-start gap-2">
        <ErrorNote error={branches.error} className="w-full" />
        <Button size="sm" busy={branches.isFetching} onClick={() => void branches.refetch()}>
          Retry
        </Button>
      </div>
    );
  }
  const fitting = branchesFitting(branches.data?.branches ?? [], search);
  const typed = search.trim();
  const exact = fitting.some(({ name }) => name === typed);
  return (
    <Command
      shouldFilter={false}
      label="Branches"
      className="overflow-hidden rounded-md border border-line-strong bg-surface shadow-sm"
    >
      <Command.Input
        autoFocus
        value={search}
        onValueChange={setSearch}
        placeholder="Search branches"
        className="h-9 w-full border-b border-line bg-transparent px-3 text-sm text-fg focus-inset pointer-coarse:h-11"
      />
      <Command.List className="max-h-52 overflow-y-auto p-1">
        {branches.isPending && <p className="px-2.5 py-2 text-sm text-fg-3">Reading the branches…</p>}
        {branches.data && fitting.length === 0 && (
          <p className="px-2.5 py-2 text-sm text-fg-2">No branch here has this in its name.</p>
        )}
        {fitting.slice(0, SHOWN).map((branch) => (
          <BranchItem
            key={branch.name}
            branch={branch}
            chosen={branch.name === value}
            why={unfit?.(branch)}
            onChoose={() => onChoose(branch.name)}
          />
        ))}
        {fitting.length > SHOWN && (
          <p className="px-2.5 py-1.5 text-xs text-fg-3">
            {fitting.length - SHOWN} more: type to narrow the list.
          </p>
        )}
        {/* The remote may have branches that were not fetched yet. */}
        {branches.data && typed !== '' && !exact && (
          <Command.Item
            value={`=${typed}`}
            onSelect={() => onChoose(typed)}
            className="rounded-md px-2.5 py-1.5 text-sm text-fg-2 data-[selected=true]:bg-hover pointer-coarse:py-2.5"
          >
            Use <span className="font-mono text-fg">{typed}</span> as it is
          </Command.Item>
        )}
      </Command.List>
    </Command>
  );
}

function BranchItem({
  branch,
  chosen,
  why,
  onChoose,
}: {
  branch: Branch;
  chosen: boolean;
  why: string | undefined;
  onChoose: () => void;
}) {
  const Icon = branch.local ? Laptop : Globe;
  return (
    <Command.Item
      value={branch.name}
      disabled={why !== undefined}
      onSelect={onChoose}
      className="flex items-center gap-2 rounded-md px-2.5 py-1.5 text-sm data-[disabled=true]:opacity-60 data-[selected=true]:bg-hover pointer-coarse:py-2.5"
    >
      <Icon aria-label={branch.local ? 'here' : 'on the remote'} className="size-3.5 shrink-0 text-fg-3" />
      <span className="min-w-0 flex-1 truncate font-mono">{branch.name}</span>
      {why === undefined ? (
        <Ago at={branch.date} className="shrink-0 text-xs text-fg-3" />
      ) : (
        <span className="shrink-0 text-xs text-fg-2">{why}</span>
      )}
      {chosen && <Check aria-label="chosen" className="size-4 shrink-0 text-accent-fg" />}
    </Command.Item>
  );
}

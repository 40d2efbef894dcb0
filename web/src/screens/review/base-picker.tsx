import { ChevronDown, GitCompareArrows, Search } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { useBranches } from '@/api/git';
import { Button } from '@/ui/button';
import { Input } from '@/ui/input';
import { Popover } from '@/ui/popover';
import { baseOf, shortRef } from './scope';
import { Visible } from './visible';

const SHOWN = 60;

/** Chooses the branch or the commit that changes are counted from. */
export function BasePicker({
  environmentId,
  base,
  onChange,
}: {
  environmentId: string;
  base: string;
  onChange: (base: string) => void;
}) {
  const [open, setOpen] = useState(false);
  const [search, setSearch] = useState('');
  const branches = useBranches(environmentId, open);
  const words = search.trim().toLowerCase();
  const found = (branches.data?.branches ?? []).filter((one) => one.name.toLowerCase().includes(words));
  const choose = (next: string) => {
    onChange(next);
    setOpen(false);
    setSearch('');
  };
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    const [first] = found;
    if (search.trim() === '') return;
    choose(first?.name.toLowerCase() === words ? baseOf(first) : search.trim());
  };
  return (
    <Popover
      label="Compare with"
      align="start"
      open={open}
      onOpenChange={setOpen}
      className="w-80 p-2"
      trigger={
        <Button size="sm" className="max-w-48 min-w-0 shrink max-sm:max-w-32 pointer-coarse:px-2">
          <GitCompareArrows aria-hidden className="size-4 text-fg-3" />
          <span className="sr-only">Since </span>
          <span className="min-w-0 truncate font-mono text-xs">
            <Visible text={shortRef(base)} />
          </span>
          <ChevronDown aria-hidden className="size-3.5 text-fg-3" />
        </Button>
      }
    >
      <form onSubmit={submit}>
        <Input
          autoFocus
          icon={Search}
          type="search"
          aria-label="A branch, a tag or a commit"
          placeholder="Branch, tag or commit"
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
      </form>
      <ul aria-label="Branches" className="mt-2 max-h-64 overflow-y-auto">
        {found.slice(0, SHOWN).map((one) => (
          <li key={one.name}>
            <button
              type="button"
              aria-pressed={baseOf(one) === base}
              onClick={() => choose(baseOf(one))}
              className="flex w-full min-w-0 flex-col rounded-md px-2 py-1.5 text-left hover:bg-hover focus-inset aria-pressed:bg-accent-soft pointer-coarse:min-h-11"
            >
              <span className="truncate font-mono text-xs">
                <Visible text={one.name} />
              </span>
              <span className="truncate text-xs text-fg-3">
                <Visible text={one.subject} />
              </span>
            </button>
          </li>
        ))}
      </ul>
      {words !== '' && !found.some((one) => one.name.toLowerCase() === words) && (
        <Button variant="ghost" className="mt-1 w-full justify-start" onClick={() => choose(search.trim())}>
          Compare with <code className="max-w-48 truncate font-mono text-xs">{search.trim()}</code>
        </Button>
      )}
      {branches.isPending && <p className="p-2 text-xs text-fg-3">Reading the branches…</p>}
      {branches.isError && branches.data === undefined && (
        <p className="p-2 text-xs text-bad">The branches could not be read. Write one instead.</p>
      )}
    </Popover>
  );
}

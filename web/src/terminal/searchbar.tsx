import { ChevronDown, ChevronUp, X } from 'lucide-react';
import { useEffect, useRef, useState, type KeyboardEvent } from 'react';
import { IconButton } from '@/ui/button';
import { Input } from '@/ui/input';
import type { SearchResult } from './emulator';

export type Search = {
  find(text: string, backwards: boolean, incremental: boolean): void;
  stopFinding(): void;
};

/** Finds text in the terminal and its history. Enter goes up, where older output is. */
export function SearchBar({ search, found }: { search: Search; found: SearchResult | null }) {
  const [text, setText] = useState('');
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Escape') search.stopFinding();
    else if (event.key === 'Enter') search.find(text, !event.shiftKey, false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div
      role="search"
      className="pointer-events-auto flex items-center gap-1 self-end rounded-lg border border-line bg-raised p-1 shadow-md animate-fade"
    >
      <Input
        ref={field}
        aria-label="Find in the terminal"
        placeholder="Find"
        spellCheck={false}
        autoCapitalize="off"
        autoComplete="off"
        className="w-44"
        value={text}
        onKeyDown={onKeyDown}
        onChange={(event) => {
          setText(event.target.value);
          search.find(event.target.value, true, true);
        }}
      />
      <output className="min-w-16 px-1 text-center text-xs text-fg-2 tabular-nums">
        {counted(text, found)}
      </output>
      <IconButton size="sm" label="Older" icon={ChevronUp} onClick={() => search.find(text, true, false)} />
      <IconButton
        size="sm"
        label="Newer"
        icon={ChevronDown}
        onClick={() => search.find(text, false, false)}
      />
      <IconButton size="sm" label="Stop finding" icon={X} onClick={() => search.stopFinding()} />
    </div>
  );
}

function counted(text: string, found: SearchResult | null): string {
  if (text === '' || found === null) return '';
  if (found.count === 0) return 'Nothing';
  return found.index < 0 ? `${found.count}+` : `${found.index + 1} of ${found.count}`;
}

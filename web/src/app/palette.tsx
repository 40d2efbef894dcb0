import { Command as Cmdk } from 'cmdk';
import { Container, CornerDownLeft, Search } from 'lucide-react';
import { Dialog } from 'radix-ui';
import { useRef, useState, type ReactNode } from 'react';
import { useNavigate } from 'react-router';
import { useEnvironments } from '@/api/queries';
import { useFocusBack } from '@/ui/focus-back';
import { Kbd } from '@/ui/kbd';
import { StatusDot } from '@/ui/status';
import { keysOf, useAllCommands, type Command } from './commands';
import { useOverrides } from './keys/bindings';
import { Keys } from './keys/shown';
import { useUnseen } from './seen';
import { environmentStatus, sessionStatus } from './status';

const ITEM =
  'flex h-10 cursor-default items-center gap-3 rounded-md px-3 text-base text-fg select-none data-[selected=true]:bg-active pointer-coarse:h-12 [&>svg]:size-4 [&>svg]:shrink-0 [&>svg]:text-fg-3';
const GROUP =
  '[&_[cmdk-group-heading]]:px-3 [&_[cmdk-group-heading]]:pt-3 [&_[cmdk-group-heading]]:pb-1 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:font-medium [&_[cmdk-group-heading]]:text-fg-3';

/** Jumps to environments and sessions, and gives commands; `>` first means commands only. */
export default function Palette({ commandsOnly, onClose }: { commandsOnly: boolean; onClose: () => void }) {
  const [text, setText] = useState(commandsOnly ? '>' : '');
  const onlyCommands = text.startsWith('>');
  // The dialog gives the focus back first, so that what runs may take it.
  const chosen = useRef<() => void>(undefined);
  const focusBack = useFocusBack(() => chosen.current?.());
  const close = (then?: () => void) => {
    chosen.current = then;
    onClose();
  };
  return (
    <Dialog.Root
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
    >
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 z-40 bg-scrim data-[state=open]:animate-fade" />
        <Dialog.Content
          aria-describedby={undefined}
          {...focusBack}
          className="fixed z-50 flex flex-col overflow-hidden border border-line bg-raised shadow-lg outline-none max-md:inset-0 max-md:border-0 md:top-[14vh] md:left-1/2 md:w-[min(640px,calc(100vw-32px))] md:-translate-x-1/2 md:rounded-xl md:data-[state=open]:animate-fade"
        >
          <Dialog.Title className="sr-only">Search and commands</Dialog.Title>
          <Cmdk
            label="Search and commands"
            loop
            filter={(value, search, keywords) =>
              score([value, ...(keywords ?? [])].join(' '), search.replace(/^>\s*/u, ''))
            }
            className="flex min-h-0 flex-1 flex-col"
          >
            <div className="flex h-12 shrink-0 items-center gap-3 border-b border-line px-4">
              <Search aria-hidden className="size-4 shrink-0 text-fg-3" />
              <Cmdk.Input
                value={text}
                onValueChange={setText}
                placeholder="Go to a session, or type > for commands"
                className="h-full min-w-0 flex-1 bg-transparent text-lg outline-none"
              />
              <Dialog.Close className="rounded-sm pointer-coarse:min-h-11 pointer-coarse:min-w-11">
                <Kbd>Esc</Kbd>
                <span className="sr-only"> closes</span>
              </Dialog.Close>
            </div>
            <Cmdk.List className="min-h-0 overflow-y-auto p-2 pt-0 max-md:flex-1 md:max-h-[min(420px,60vh)]">
              <Cmdk.Empty className="py-10 text-center text-sm text-fg-2">Nothing fits.</Cmdk.Empty>
              {!onlyCommands && <Places close={close} />}
              <Commands close={close} />
            </Cmdk.List>
            <footer className="hidden h-9 shrink-0 items-center gap-4 border-t border-line px-4 text-xs text-fg-3 md:flex">
              <span className="flex items-center gap-1.5">
                <Kbd>↑</Kbd>
                <Kbd>↓</Kbd> choose
              </span>
              <span className="flex items-center gap-1.5">
                <Kbd>
                  <CornerDownLeft aria-hidden className="size-3" />
                </Kbd>
                open
              </span>
              <span className="flex items-center gap-1.5">
                <Kbd>&gt;</Kbd> commands only
              </span>
            </footer>
          </Cmdk>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

/** How well a text fits: each word of the query must be in it; a word's beginning is worth more. Pure. */
export function score(text: string, query: string): number {
  const where = text.toLowerCase();
  let worth = 1;
  for (const word of query.toLowerCase().split(/\s+/u).filter(Boolean)) {
    const at = where.indexOf(word);
    if (at === -1) return 0;
    worth *= at === 0 ? 1 : /[\s/_-]/u.test(where[at - 1] ?? '') ? 0.9 : 0.5;
  }
  return worth;
}

type Close = (then?: () => void) => void;

function Places({ close }: { close: Close }) {
  const { data } = useEnvironments();
  const unseen = useUnseen();
  const navigate = useNavigate();
  const environments = data ?? [];
  const open = (to: string) => () => close(() => void navigate(to));
  const sessions = environments.flatMap((environment) =>
    environment.sessions
      .filter((session) => session.status !== 'dead')
      .map((session) => ({ session, environment })),
  );
  return (
    <>
      {sessions.length > 0 && (
        <Cmdk.Group heading="Sessions" className={GROUP}>
          {sessions.map(({ session, environment }) => {
            const { kind, word } = sessionStatus(session, unseen(session));
            return (
              <Cmdk.Item
                key={session.id}
                value={`${session.name} ${environment.name} ${session.id}`}
                keywords={session.gitBranch === null ? [] : [session.gitBranch]}
                onSelect={open(`/s/${session.id}`)}
                className={ITEM}
              >
                <StatusDot kind={kind} label={word} className={`size-3! ${DOT[kind]}`} />
                <span className="min-w-0 flex-1 truncate">{session.name}</span>
                <Aside>{environment.name}</Aside>
              </Cmdk.Item>
            );
          })}
        </Cmdk.Group>
      )}
      {environments.length > 0 && (
        <Cmdk.Group heading="Environments" className={GROUP}>
          {environments.map((one) => (
            <Cmdk.Item
              key={one.id}
              value={`${one.name} ${one.id}`}
              keywords={[one.repositoryUrl ?? '']}
              onSelect={open(`/e/${one.id}`)}
              className={ITEM}
            >
              <Container aria-hidden />
              <span className="min-w-0 flex-1 truncate">{one.name}</span>
              <Aside>{environmentStatus(one).word}</Aside>
            </Cmdk.Item>
          ))}
        </Cmdk.Group>
      )}
    </>
  );
}

const DOT: Record<string, string> = { ready: 'text-ok!' };

function Aside({ children }: { children: ReactNode }) {
  return <span className="max-w-48 shrink-0 truncate text-sm text-fg-2">{children}</span>;
}

function Commands({ close }: { close: Close }) {
  const all = useAllCommands().filter((one) => one.keysOnly !== true && one.enabled !== false);
  return [...new Set(all.map((one) => one.group))].map((group) => (
    <Cmdk.Group key={group} heading={group} className={GROUP}>
      {all
        .filter((one) => one.group === group)
        .map((one) => (
          <CommandItem key={one.id} command={one} close={close} />
        ))}
    </Cmdk.Group>
  ));
}

function CommandItem({ command, close }: { command: Command; close: Close }) {
  const keys = keysOf(command, useOverrides());
  const Icon = command.icon;
  return (
    <Cmdk.Item
      value={`${command.title} ${command.id}`}
      keywords={[command.group, command.keywords ?? '']}
      onSelect={() => close(command.run)}
      className={ITEM}
    >
      {Icon ? <Icon aria-hidden /> : <span className="size-4" />}
      <span className="min-w-0 flex-1 truncate">{command.title}</span>
      {keys !== undefined && <Keys keys={keys} />}
    </Cmdk.Item>
  );
}

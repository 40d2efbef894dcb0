import {
  ChevronRight,
  Container,
  Ellipsis,
  House,
  LogOut,
  Moon,
  PanelLeft,
  Plus,
  Search,
  Settings,
  Sun,
  Sparkles,
  SunMoon,
  TriangleAlert,
  type LucideIcon,
} from 'lucide-react';
import type { ReactNode } from 'react';
import { NavLink, useMatch, useNavigate } from 'react-router';
import { useEnvironments } from '@/api/queries';
import type { ListedEnvironment, SessionLine } from '@/api/types';
import { logout, useUser } from '@/auth/session';
import { Avatar } from '@/ui/avatar';
import { IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { ContextMenu, DropdownMenu, type MenuItem } from '@/ui/menu';
import { Skeleton } from '@/ui/skeleton';
import { StatusDot } from '@/ui/status';
import { Tooltip } from '@/ui/tooltip';
import { setAppearance, useAppearance, type Theme } from './appearance';
import { useAttention } from './attention';
import { commands } from './commands';
import { useCreateDialog, useTaskDialog } from './create';
import { CommandKeys } from './keys/shown';
import { Logo } from './logo';
import { useUnseen } from './seen';
import { environmentStatus, sessionStatus } from './status';
import { isStrings, useStored } from './stored';
import { whyOf } from './why';

const ROW =
  'flex h-8 min-w-0 items-center gap-2 rounded-md px-2 text-sm text-fg-2 hover:bg-hover hover:text-fg aria-[current=page]:bg-active aria-[current=page]:font-medium aria-[current=page]:text-fg pointer-coarse:h-11';

export function Sidebar({ collapsed, onToggle }: { collapsed: boolean; onToggle: () => void }) {
  return (
    <aside
      aria-label="Sidebar"
      className={cn(
        'hidden shrink-0 flex-col border-r border-line bg-canvas md:flex',
        collapsed ? 'w-[52px]' : 'w-(--sidebar-width)',
      )}
    >
      <div
        className={cn(
          'flex shrink-0 items-center gap-2',
          collapsed ? 'flex-col px-2 pt-3 pb-1' : 'h-(--topbar-height) pr-2 pl-3.5',
        )}
      >
        <Logo className="size-6 shrink-0" />
        {!collapsed && <span className="flex-1 text-base font-semibold tracking-tight">Craftastic</span>}
        <IconButton
          icon={PanelLeft}
          label={collapsed ? 'Show the sidebar' : 'Hide the sidebar'}
          shortcut={<CommandKeys id="view.sidebar" />}
          tooltipSide="right"
          aria-expanded={!collapsed}
          onClick={onToggle}
          className="aria-expanded:bg-transparent"
        />
      </div>
      {collapsed ? <Rail /> : <Tree />}
      <UserMenu collapsed={collapsed} />
    </aside>
  );
}

function Rail() {
  const waiting = useAttention();
  const create = useCreateDialog();
  const task = useTaskDialog();
  const navigate = useNavigate();
  const first = waiting[0];
  return (
    <nav aria-label="Main" className="flex flex-1 flex-col items-center gap-1 px-2 py-1">
      <IconButton
        icon={Search}
        label="Search and commands"
        shortcut={<CommandKeys id="palette.open" />}
        tooltipSide="right"
        onClick={() => commands.run('palette.open')}
      />
      <RailLink to="/" icon={House} label="Home" />
      <RailLink to="/envs" icon={Container} label="Environments" />
      <IconButton
        icon={Sparkles}
        label="New task"
        shortcut={<CommandKeys id="task.new" />}
        tooltipSide="right"
        onClick={task.show}
      />
      <IconButton icon={Plus} label="New environment" tooltipSide="right" onClick={create.show} />
      {first && (
        <IconButton
          icon={TriangleAlert}
          label={`${waiting.length} need you`}
          tooltipSide="right"
          className="text-bad enabled:hover:text-bad"
          onClick={() => void navigate(first.to)}
        />
      )}
    </nav>
  );
}

function RailLink({ to, icon: Icon, label }: { to: string; icon: LucideIcon; label: string }) {
  return (
    <Tooltip content={label} side="right">
      <NavLink
        to={to}
        end={to === '/'}
        aria-label={label}
        className="flex size-8 items-center justify-center rounded-md text-fg-2 hover:bg-hover hover:text-fg aria-[current=page]:bg-active aria-[current=page]:text-fg pointer-coarse:size-11"
      >
        <Icon aria-hidden className="size-4" />
      </NavLink>
    </Tooltip>
  );
}

function Tree() {
  const { data, isPending, isError, refetch } = useEnvironments();
  const create = useCreateDialog();
  const task = useTaskDialog();
  return (
    <nav aria-label="Main" className="flex min-h-0 flex-1 flex-col gap-4 overflow-y-auto px-2 pt-1 pb-3">
      <div className="flex flex-col gap-0.5">
        <button
          type="button"
          onClick={() => commands.run('palette.open')}
          className="mb-1.5 flex h-8 items-center gap-2 rounded-md border border-line bg-surface px-2 text-sm text-fg-3 shadow-sm hover:border-line-strong hover:text-fg-2"
        >
          <Search aria-hidden className="size-4" />
          <span className="flex-1 text-left">Search</span>
          <CommandKeys id="palette.open" />
        </button>
        <NavLink to="/" end className={ROW}>
          <House aria-hidden className="size-4" /> Home
        </NavLink>
        <button type="button" onClick={task.show} className={cn(ROW, 'text-left')}>
          <Sparkles aria-hidden className="size-4" />
          <span className="flex-1">New task</span>
          <CommandKeys id="task.new" />
        </button>
      </div>
      <AttentionGroup />
      <Group
        title={<GroupLink to="/envs" label="Environments" count={data?.length ?? 0} />}
        aside={<IconButton size="sm" icon={Plus} label="New environment" onClick={create.show} />}
      >
        {isPending && <TreeSkeleton />}
        {isError && data === undefined && (
          <p className="px-2 text-sm text-fg-2">
            The list could not be read.{' '}
            <button
              type="button"
              className="font-medium text-accent-fg underline"
              onClick={() => void refetch()}
            >
              Retry
            </button>
          </p>
        )}
        {data?.length === 0 && (
          <p className="px-2 py-1 text-sm text-fg-3">Your environments and their sessions will be here.</p>
        )}
        <Environments environments={data ?? []} />
      </Group>
    </nav>
  );
}

function TreeSkeleton() {
  return (
    <div className="flex flex-col gap-3 px-2 py-1.5">
      {['w-3/5', 'w-2/5', 'w-1/2'].map((width) => (
        <Skeleton key={width} className={width} />
      ))}
    </div>
  );
}

function Group({ title, aside, children }: { title: ReactNode; aside?: ReactNode; children: ReactNode }) {
  return (
    <div>
      <div className="mb-0.5 flex h-7 items-center justify-between pl-2">
        <h2 className="flex items-center gap-1.5 text-xs font-medium text-fg-3">{title}</h2>
        {aside}
      </div>
      {children}
    </div>
  );
}

function GroupLink({ to, label, count }: { to: string; label: string; count: number }) {
  return (
    <NavLink
      to={to}
      className="-ml-1 flex h-6 items-center gap-1.5 rounded-sm px-1 hover:text-fg aria-[current=page]:font-semibold aria-[current=page]:text-fg pointer-coarse:h-11"
    >
      {label}
      {count > 0 && <span className="tabular-nums">{count}</span>}
    </NavLink>
  );
}

function AttentionGroup() {
  const waiting = useAttention();
  if (waiting.length === 0) return null;
  return (
    <Group
      title={
        <>
          Needs you
          <span className="rounded-full bg-bad-soft px-1.5 text-xs font-semibold text-bad tabular-nums">
            {waiting.length}
          </span>
        </>
      }
    >
      <ul className="flex flex-col gap-0.5">
        {waiting.map((one) => (
          <li key={one.id}>
            <NavLink to={one.to} className={ROW} title={one.details}>
              <StatusDot kind={one.kind} />
              <span className="min-w-0 flex-1 truncate">{one.title}</span>
              <span
                className={cn(
                  'max-w-1/2 shrink-0 truncate text-xs',
                  one.kind === 'failed' ? 'text-bad' : 'text-warn',
                )}
              >
                {one.why}
              </span>
            </NavLink>
          </li>
        ))}
      </ul>
    </Group>
  );
}

function Environments({ environments }: { environments: readonly ListedEnvironment[] }) {
  const [closed, setClosed] = useStored('sidebar.closed', [], isStrings);
  return (
    <ul className="flex flex-col gap-0.5">
      {environments.map((one) => (
        <EnvironmentNode
          key={one.id}
          environment={one}
          open={!closed.includes(one.id)}
          onToggle={() =>
            setClosed(
              closed.includes(one.id)
                ? closed.filter((id) => id !== one.id)
                : [...closed.slice(-199), one.id],
            )
          }
        />
      ))}
    </ul>
  );
}

function EnvironmentNode({
  environment,
  open,
  onToggle,
}: {
  environment: ListedEnvironment;
  open: boolean;
  onToggle: () => void;
}) {
  const navigate = useNavigate();
  const { kind, word } = environmentStatus(environment);
  const sessions = environment.sessions.filter((one) => one.status !== 'dead');
  const items: MenuItem[] = [
    { label: 'Open', icon: Container, onSelect: () => void navigate(`/e/${environment.id}`) },
    { label: 'New session', icon: Plus, onSelect: () => void navigate(`/e/${environment.id}?new=session`) },
  ];
  return (
    <li>
      <ContextMenu items={items}>
        <div className="group relative flex items-center">
          <button
            type="button"
            aria-expanded={open}
            aria-label={`Sessions of ${environment.name}`}
            onClick={onToggle}
            disabled={sessions.length === 0}
            className="absolute left-0.5 z-10 flex size-6 items-center justify-center rounded-sm text-fg-3 enabled:hover:text-fg disabled:opacity-0"
          >
            <ChevronRight aria-hidden className={cn('size-3.5 transition-transform', open && 'rotate-90')} />
          </button>
          <NavLink
            to={`/e/${environment.id}`}
            title={whyOf(environment)?.reason}
            className={cn(ROW, 'flex-1 pr-8 pl-7')}
          >
            <StatusDot kind={kind} label={word} />
            <span className="min-w-0 flex-1 truncate">{environment.name}</span>
          </NavLink>
          <div className="absolute right-0.5 opacity-0 group-focus-within:opacity-100 group-hover:opacity-100 pointer-coarse:hidden">
            <DropdownMenu items={items} align="start">
              <IconButton size="sm" icon={Ellipsis} label={`More about ${environment.name}`} />
            </DropdownMenu>
          </div>
        </div>
      </ContextMenu>
      {open && sessions.length > 0 && (
        <ul className="mt-0.5 ml-[15px] flex flex-col gap-0.5 border-l border-line pl-2">
          {sessions.map((session) => (
            <SessionNode key={session.id} session={session} />
          ))}
        </ul>
      )}
    </li>
  );
}

function SessionNode({ session }: { session: SessionLine }) {
  const { kind, word } = sessionStatus(session, useUnseen()(session));
  const inside = useMatch(`/s/${session.id}/*`) !== null;
  return (
    <li>
      <NavLink
        to={`/s/${session.id}`}
        title={session.gitBranch ?? undefined}
        className={ROW}
        {...(inside ? { 'aria-current': 'page' } : {})}
      >
        <StatusDot kind={kind} label={word} />
        <span className="min-w-0 flex-1 truncate">{session.name}</span>
      </NavLink>
    </li>
  );
}

const THEMES: readonly { value: Theme; label: string; icon: LucideIcon }[] = [
  { value: 'system', label: 'System theme', icon: SunMoon },
  { value: 'light', label: 'Light theme', icon: Sun },
  { value: 'dark', label: 'Dark theme', icon: Moon },
];

function UserMenu({ collapsed }: { collapsed: boolean }) {
  const user = useUser();
  const navigate = useNavigate();
  const { theme } = useAppearance();
  return (
    <div className={cn('shrink-0 border-t border-line p-2', collapsed && 'flex justify-center')}>
      <DropdownMenu
        side="top"
        align="start"
        items={[
          { kind: 'heading', label: user.email },
          { label: 'Settings', icon: Settings, onSelect: () => void navigate('/settings') },
          { kind: 'separator' },
          ...THEMES.map(({ value, label }): MenuItem => ({
            kind: 'check',
            label,
            checked: theme === value,
            onChange: () => setAppearance({ theme: value }),
          })),
          { kind: 'separator' },
          { label: 'Sign out', icon: LogOut, onSelect: logout },
        ]}
      >
        <button
          type="button"
          className={cn(
            'flex items-center gap-2.5 rounded-md text-left hover:bg-hover',
            collapsed ? 'size-9 justify-center' : 'w-full px-2 py-1.5',
          )}
        >
          <Avatar name={user.name} />
          <span className="sr-only">Account menu of </span>
          {collapsed && <span className="sr-only">{user.name}</span>}
          {!collapsed && <span className="min-w-0 flex-1 truncate text-sm font-medium">{user.name}</span>}
          {!collapsed && <Ellipsis aria-hidden className="size-4 text-fg-3" />}
        </button>
      </DropdownMenu>
    </div>
  );
}
